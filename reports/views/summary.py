"""The page in short: what generation takes of every model, a line each."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from reports.draw import numbers
from reports.draw.table import Table
from reports.results import Results
from reports.views.inference import Values, longest
from reports.views.processes import WHERE, pooled
from reports.views.view import Section, View, disturbed_note, eager_note


def views(results: Results) -> Iterator[View]:
    """The short table, printed as well; what differs between its lines is a column of it."""
    frame = pooled(results.frame("inference"))
    if frame.empty:
        return
    frame = longest(frame)
    varying = [key for key in WHERE if frame[key].nunique() > 1]
    lines = []
    ordered = frame.sort_values("parameters", kind="stable")
    for (label, *_), part in ordered.groupby(["label", *varying], sort=False, dropna=False):
        fair, no_cache = Values(part[part.protocol == "fair"]), Values(part[part.protocol == "paper"])
        context = fair.last_tokens("state_bytes")
        lines.append(
            {
                "model": label,
                **{key.replace("_", " "): part[key].iloc[0] for key in varying},
                "parameters": numbers.millions(part.parameters.iloc[0]),
                "ms a token": fair.milliseconds("p50_s"),
                "first token, ms": fair.milliseconds("first_token_s"),
                "ms a token, no cache*": no_cache.milliseconds("p50_s"),
                "weights": fair.mebibytes("parameter_bytes"),
                "cache or state": fair.mebibytes("state_bytes", context) + (f" at {context}" if context else ""),
            }
        )
    note = (
        "* the paper's protocol: Transformers compute the whole sequence again at each token, RWKV carries its state. "
        "In the other columns every family carries its cache or state. " + _repeats(frame)
    )
    table = Table(
        "summary", "Generation in short", pd.DataFrame(lines), note + eager_note(frame) + disturbed_note(frame)
    )
    yield View("summary", "In short", tables=[table], printed=table)


def _repeats(frame: pd.DataFrame) -> str:
    """Of how many runs and tokens the medians are."""
    timed = frame[frame.repeats.notna()]
    of = {}
    for mark, protocol in (("", "fair"), ("*: ", "paper")):
        part = timed[timed.protocol == protocol]
        if len(part):
            runs, processes, tokens = (
                numbers.span(part[key].min(), part[key].max()) for key in ("repeats", "processes", "new_tokens")
            )
            of[protocol] = f"{mark}{runs} runs, processes: {processes}, tokens: {tokens}"
    return f"Medians of {'; '.join(of.values())}."


SECTION = Section(views)  # inference.py reads the experiment
