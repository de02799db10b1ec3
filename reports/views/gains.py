"""What each measure gains on one machine: fewer bits, a cache that is not copied, attention in C, a CUDA graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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
TIMES = {"step_s": "a token", "first_token_s": "the first token"}
NOTE = (
    "Times over those of the same model in {widest} at its best otherwise, medians; in brackets what the extremes of "
    "both sides allow. Below 1 the measure is faster; above 1 is what it would cost to do without the best. ~: inside "
    "the noise."
)


def views(results: Results) -> Iterator[View]:
    """One section for each machine, device and batch on which a model was measured in more than one way."""
    frame = pooled(results.frame("decode"))
    if frame.empty:
        return
    times = frame[frame.metric.isin(TIMES) & ~frame.disturbed]
    ways = times.assign(way=times["dtype"] + times.label).groupby([*ALIKE, "model"], dropna=False).way
    for number, (machine, device, _, batch, _), part in parts(times[ways.transform("nunique") > 1], ALIKE):
        widest = min(part[part.at_best]["dtype"], key=DTYPES.index, default="")
        models = ordered(part, "family").groupby("model", sort=False)
        lines = [line for _, model in models for line in _lines(model, widest)]
        if lines:
            name, title = f"gains{number}", f"Time over that in {widest} at its best"
            table = Table(name, title, pd.DataFrame(lines), NOTE.format(widest=widest))
            yield View(name, f"What each measure gains, {machine}, {device}, batch {batch}", [], [table])


def _lines(model: pd.DataFrame, widest: str) -> Iterator[dict[str, str]]:
    """A line for each way in which a model was measured beside the plain one, at the ends of what both reached."""
    plain = model[(model["dtype"] == widest) & model.at_best].set_index(["metric", "tokens"])
    plain = plain[~plain.index.duplicated()]  # of several that something else tells apart the first
    for (dtype, label), other in model.groupby(["dtype", "label"], sort=False):
        other = other.set_index(["metric", "tokens"])
        both = {*plain.index} & {*other.index}
        places = sorted({at for _, at in both if all((metric, at) in both for metric in TIMES)})
        if (dtype == widest and other.at_best.all()) or not places:
            continue
        line = {"model": str(label), "type": str(dtype)}
        for column, at in (("shortest", places[0]), ("longest", places[-1])):
            line[column] = numbers.count(at)
            for metric, quantity in TIMES.items():
                line[f"{quantity}, {column}"] = _ratio(other.loc[(metric, at)], plain.loc[(metric, at)])
        yield line


def _ratio(one: pd.Series[Any], base: pd.Series[Any]) -> str:
    low, high = one.low / base.high, one.high / base.low
    shown = numbers.spread(one.value / base.value, low, high, numbers.ratio)
    return ("" if beyond_noise(low, high) else "~ ") + shown


SECTION = Section(views)  # decode.py reads the experiment
