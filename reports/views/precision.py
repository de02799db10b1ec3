"""The view of fewer bits: what they change in the predictions, and what they save in time and memory."""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Iterator

import pandas as pd

from reports.draw import numbers
from reports.draw.table import Table
from reports.reading import Reading, Row
from reports.records.record import Record
from reports.results import Results
from reports.views.families import ordered
from reports.views.processes import pooled
from reports.views.view import Section, View, parts

EXACT = "float32"
NOTE = (
    "KL: how far the distribution of the next token is from the same weights' in float32, nats, the mean over all "
    "tokens ± its standard error over the documents. same likeliest: share of tokens whose likeliest next token is the "
    "same. loss: on the same text, minus that in float32, nats a token. a token: the median at the shortest context "
    "that was measured, and its ratio to float32's, in brackets what the extremes of both allow."
)


def rows(record: Record) -> Iterator[Row]:
    """Over the documents the mean of each quantity, with its standard error."""
    samples = record.samples
    more = [b - a for a, b in zip(samples["loss_float32"], samples["loss"], strict=True)]
    for name, values in (("kl", samples["kl"]), ("agreement", samples["agreement"]), ("more_loss", more)):
        error = statistics.stdev(values) / len(values) ** 0.5
        yield {"metric": name, "value": statistics.fmean(values), "stderr": error}


def views(results: Results) -> Iterator[View]:
    """One section for each machine, device and text."""
    frame = results.frame("precision")
    timed = pooled(results.frame("decode"))
    for number, _, part in parts(frame, ["machine", "device", "text"]):
        first = part.iloc[0]
        lines = []
        for (label, dtype), one in ordered(part, "parameters", "family").groupby(["label", "dtype"], sort=False):
            values = one.set_index("metric")
            kl, more = values.loc["kl"], values.loc["more_loss"]
            lines.append(
                {
                    "model": label,
                    "type": dtype,
                    "KL": f"{kl.value:.2g} ± {kl.stderr:.1g}",
                    "same likeliest, %": numbers.percent(values.value["agreement"], values.stderr["agreement"], 2),
                    "loss": f"{more.value:+.5f} ± {more.stderr:.5f}",
                    **_time(timed, first.machine, label, dtype),
                }
            )
        title = f"Fewer bits, {first.machine}, {first.device}"
        table = Table(f"precision{number}", "Fewer bits", pd.DataFrame(lines), NOTE)
        yield View(table.name, title, tables=[table])


def _time(timed: pd.DataFrame, machine: str, label: Hashable, dtype: Hashable) -> dict[str, str]:
    """A token at the shortest context and batch, beside float32's; dashes where it was not measured."""
    if timed.empty:
        return {"a token, ms": "-", "x float32's": "-"}
    rows = timed[(timed.machine == machine) & (timed.label == label) & (timed.metric == "step_s") & ~timed.disturbed]
    steps = rows[(rows.tokens == rows.tokens.min()) & (rows.batch == rows.batch.min())].set_index("dtype")
    if dtype not in steps.index:
        return {"a token, ms": "-", "x float32's": "-"}
    few = steps.loc[str(dtype)]
    shown = {"a token, ms": numbers.spread(few.value, few.low, few.high, numbers.milliseconds), "x float32's": "-"}
    if EXACT in steps.index:
        full = steps.loc[EXACT]
        ratios = few.value / full.value, few.low / full.high, few.high / full.low
        shown["x float32's"] = numbers.spread(*ratios, numbers.ratio)
    return shown


SECTION = Section(views, {"precision": Reading(rows, {"documents", "tokens"}, compared={"agreement": "score"})})
