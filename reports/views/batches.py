"""Views of generation by batch: throughput, what of it a bound on latency leaves, and what fits in a memory."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from reports.draw import numbers
from reports.draw.figure import Panel, Picture, Series
from reports.draw.table import Table
from reports.forecast import Forecast
from reports.results import Results
from reports.views import curves, roofline
from reports.views.processes import on, pooled
from reports.views.view import Section, View, eager_note, parts

ALIKE = ["machine", "device", "dtype", "threads", "weights"]
LATENCIES = (0.025, 0.05, 0.1, 0.25)  # seconds a token; 4 tokens a second is about as fast as one reads
MEMORIES = (8e9, 16e9, 24e9, 80e9)
CONTEXT = 8192  # at which it is said how many sequences fit
GOODPUT = (
    "The most tokens a second, and the batch that makes them, where nine of ten tokens take no longer than the bound, "
    "of the batches that were measured."
)
FITS = (
    "Reckoned from the measured bytes of weights, of cache or state, and of what a chunk and a step take beyond them: "
    f"the longest context of one sequence, and the most sequences of {CONTEXT:,} tokens. any: the memory does not end "
    "it. A dash: the model has fewer positions. Allocators and other processes leave less."
)


def views(results: Results) -> Iterator[View]:
    """One section for each machine, device and type: what fits, and where several batches were measured, throughput."""
    frame = pooled(results.frame("decode"))
    if frame.empty:
        return
    for number, _, part in parts(frame, ALIKE):
        first = part.iloc[0]
        footer, tables, pictures = on(part), [], []
        quiet = part[~part.disturbed]
        steps = quiet[quiet.metric == "step_s"]
        several = steps[steps.groupby(["label", "tokens"]).batch.transform("nunique") > 1]
        if len(several):
            models = several.groupby("tokens").label.nunique()
            context = int(max(models.index, key=lambda tokens: (models[tokens], tokens)))
            undisturbed = quiet[quiet.label.isin(several[several.tokens == context].label)]
            at = undisturbed[undisturbed.tokens == context].sort_values("batch", kind="stable")
            where = f"{footer} · {context:,} tokens of context"
            pictures += [
                _throughput(at, f"throughput{number}", where),
                roofline.picture(undisturbed, context, f"roofline{number}", where),
            ]
            tables.append(_goodput(at, f"goodput{number}", context))
        tables.append(_fits(part, f"fits{number}"))
        title = f"Batches and memory, {first.machine}, {first.device} {first['dtype']}"
        yield View(f"batches{number}", title, [f"{footer}."], tables, pictures)


def _throughput(at: pd.DataFrame, name: str, footer: str) -> Picture:
    panels = []
    for size, chosen in curves.classes(at[at.metric == "step_s"]):
        series = []
        for label, one in chosen.groupby("label", sort=False):
            y, low, high = (list(one.batch / one[key]) for key in ("value", "band_high", "band_low"))
            series.append(Series(str(label), one.family.iloc[0], list(one.batch), y, low, high))
        panels.append(Panel(f"{size} parameters", "sequences at once", "tokens a second", series, log_x=2, log_y=10))
    return Picture(name, "Throughput against batch", panels, footer)


def _goodput(at: pd.DataFrame, name: str, context: int) -> Table:
    lines = []
    for label, one in at.sort_values("parameters", kind="stable").groupby("label", sort=False):
        step, slow = (one[one.metric == metric].set_index("batch").value for metric in ("step_s", "step_p90_s"))
        throughput = step.index / step
        line = {"model": label, "batches": ", ".join(map(str, step.index))}
        for bound in LATENCIES:
            within = throughput[slow <= bound]
            shown = f"{within.max():.1f} (batch {within.idxmax()})" if len(within) else "none"
            line[f"within {numbers.milliseconds(bound)} ms"] = shown
        lines.append({**line, "any latency": f"{throughput.max():.1f} (batch {throughput.idxmax()})"})
    return Table(name, f"Tokens a second within a latency, {context:,} tokens of context", pd.DataFrame(lines), GOODPUT)


def _fits(part: pd.DataFrame, name: str) -> Table:
    lines = []
    for label, one in part.sort_values("parameters", kind="stable").groupby("label", sort=False):
        forecast = Forecast(one)
        positions = one[one.metric == "most_tokens"].value
        limit = float(positions.iloc[0]) if len(positions) else math.inf
        line = {"model": label}
        for memory in MEMORIES:
            longest = min(forecast.longest(memory, 1), limit)
            line[f"context in {memory / 1e9:g} GB"] = "any" if math.isinf(longest) else numbers.count(longest)
        for memory in MEMORIES:
            most = forecast.largest_batch(memory, CONTEXT) if limit >= CONTEXT else None
            line[f"sequences in {memory / 1e9:g} GB"] = numbers.count(most)
        lines.append(line)
    return Table(name, "What fits", pd.DataFrame(lines), FITS + eager_note(part))


SECTION = Section(views)  # decode.py reads the experiment
