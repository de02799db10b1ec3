"""What each measure gains on one machine: a cache that is not copied, a CUDA graph, weights of fewer bits."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from reports.draw import numbers
from reports.draw.table import Table
from reports.results import Results
from reports.sentences import beyond_noise
from reports.views.families import ordered
from reports.views.processes import pooled
from reports.views.view import Section, View, parts
from rwkv_core.dtypes import DTYPES

ALIKE = ["machine", "device", "threads", "batch", "weights"]
NOTE = (
    "Time a token over that of the same model in {widest} at its best otherwise (a cache that is not copied, on a GPU "
    "a CUDA graph), medians; in brackets what the extremes of both sides allow. Below 1 the measure is faster. ~: "
    "inside the noise."
)


def views(results: Results) -> Iterator[View]:
    """One section for each machine, device and batch on which a model was measured in more than one way."""
    frame = pooled(results.frame("decode"))
    if frame.empty:
        return
    steps = frame[(frame.metric == "step_s") & ~frame.disturbed]
    ways = steps.assign(way=steps["dtype"] + steps.label).groupby([*ALIKE, "model"], dropna=False).way
    for number, (machine, device, _, batch, _), part in parts(steps[ways.transform("nunique") > 1], ALIKE):
        widest = min(part[part.at_best]["dtype"], key=DTYPES.index, default="")
        models = ordered(part, "family").groupby("model", sort=False)
        lines = [line for _, model in models for line in _lines(model, widest)]
        if lines:
            name, title = f"gains{number}", f"Time a token, over that in {widest} with a cache in place"
            table = Table(name, title, pd.DataFrame(lines), NOTE.format(widest=widest))
            yield View(name, f"What each measure gains, {machine}, {device}, batch {batch}", [], [table])


def _lines(model: pd.DataFrame, widest: str) -> Iterator[dict[str, str]]:
    """A line for each way in which a model was measured beside the plain one, at the ends of what both reached."""
    plain = model[(model["dtype"] == widest) & model.at_best].set_index("tokens")
    for (dtype, label), other in model.groupby(["dtype", "label"], sort=False):
        other = other.set_index("tokens")
        places = sorted({*plain.index} & {*other.index})
        if (dtype == widest and other.at_best.all()) or not places:
            continue
        line = {"model": str(label), "type": str(dtype)}
        for column, at in (("shortest", places[0]), ("longest", places[-1])):
            one, base = other.loc[at], plain.loc[at]
            low, high = one.low / base.high, one.high / base.low
            shown = numbers.spread(one.value / base.value, low, high, numbers.ratio)
            line |= {column: numbers.count(at), f"{column}, time": ("" if beyond_noise(low, high) else "~ ") + shown}
        yield line


SECTION = Section(views)  # decode.py reads the experiment
