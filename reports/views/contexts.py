"""The view of generation after prompts of different length: what a token takes, and what is held, against context."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from reports.draw import numbers
from reports.draw.figure import Panel, Picture, Series
from reports.draw.numbers import MIB
from reports.draw.table import Table
from reports.results import Results
from reports.views import curves
from reports.views.processes import pooled
from reports.views.view import Section, View, disturbed_note, eager_note, parts, timed

ALIKE = ["machine", "device", "dtype", "threads", "batch", "weights"]
METRICS = ("p50_s", "first_token_s", "state_bytes", "peak_bytes")
FEW_TOKENS = 32  # new ones: beyond, a cell has curves of its own
BAND = ("band_low", "band_high")
FEWEST = 3  # prompts of different length make a curve
KEYS = [*ALIKE, "label", "new_tokens"]
SHOWN = {  # picture: metric, title, unit, what its values are divided by
    "latency": ("p50_s", "Time a token against context", "milliseconds a token, median", 1e-3),
    "first": ("first_token_s", "Time to the first token against the prompt", "milliseconds", 1e-3),
    "memory": ("peak_bytes", "Peak memory beyond the weights against context", "MiB", MIB),
}
TEXT = (
    "A few tokens generated after prompts of different length, every family with its cache or state: each point is "
    "what a token takes at that context."
)


def of_contexts(frame: pd.DataFrame) -> pd.Series[bool]:
    """Which rows belong to a model that generated a few tokens after each of several prompts, otherwise alike."""
    prompts = frame.groupby(KEYS, dropna=False).prompt_tokens.transform("nunique")
    return (frame.protocol == "fair") & (frame.new_tokens <= FEW_TOKENS) & (prompts >= FEWEST)


def views(results: Results) -> Iterator[View]:
    """One section for each machine, device and type that has such models."""
    frame = pooled(results.frame("inference"))
    if frame.empty:
        return
    frame = frame[of_contexts(frame)].sort_values(["disturbed", "measured_at"], ascending=[False, True], kind="stable")
    for number, _, part in parts(frame, ALIKE):
        first = part.iloc[0]
        name = f"contexts{number}"
        footer = (
            f"{first.machine} · {first.device} · {first['dtype']} · batch {first.batch} · "
            f"{first.new_tokens} new tokens · {first.weights} weights · median of {part.repeats.max():.0f} runs"
        )
        pictures = [_picture(part, f"{name}-{kind}", footer, *shown) for kind, shown in SHOWN.items()]
        title = f"Generation against context, {first.machine}, {first.device} {first['dtype']}"
        yield View(name, title, [TEXT, f"{footer}."], [_table(part, name)], pictures)


def _values(part: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One row a model and prompt: the latest cell's that nothing disturbed, of a metric with several the one at its
    largest context.
    """
    rows = part[part.metric == metric].sort_values("tokens", kind="stable")
    return rows.drop_duplicates(["label", "prompt_tokens"], keep="last").sort_values(["parameters", "prompt_tokens"])


def _picture(part: pd.DataFrame, name: str, footer: str, metric: str, title: str, unit: str, scale: float) -> Picture:
    panels = []
    for size, chosen in curves.classes(_values(part, metric)):
        series = []
        for label, one in chosen.groupby("label", sort=False):
            x, (y, low, high) = list(one.prompt_tokens), (list(one[key] / scale) for key in ("value", *BAND))
            if one.band_low.isna().any():  # memory: neither repeated nor timed
                series.append(Series(str(label), one.family.iloc[0], x, y))
                continue
            apart = [(at, value / scale) for at, values in zip(x, one.apart, strict=True) for value in values]
            crossed = list(one.disturbed)
            series.append(Series(str(label), one.family.iloc[0], x, y, low, high, apart=apart, crossed=crossed))
        panels.append(Panel(f"{size} parameters", "tokens of the prompt", unit, series, log_x=2, log_y=10))
    return Picture(name, title, panels, footer)


def _table(part: pd.DataFrame, name: str) -> Table:
    values = {metric: _values(part, metric).set_index(["label", "prompt_tokens"]) for metric in METRICS}
    lines = []
    for at in values["p50_s"].index:
        token, first, held, peak = (values[metric].loc[at] for metric in METRICS)
        lines.append(
            {
                "model": at[0],
                "prompt": at[1],
                "ms a token": timed(token, 2),
                "first token, ms": timed(first, 2),
                "cache or state": numbers.mebibytes(held.value),
                "peak": numbers.mebibytes(peak.value),
            }
        )
    note = "Median of the repeats, in brackets the least and the largest. Memory: beyond the weights, at the end."
    note += eager_note(part) + disturbed_note(part)
    return Table(name, "Time and memory against context", pd.DataFrame(lines), note)


SECTION = Section(views)  # inference.py reads the experiment
