"""Views of generation at growing context: a token, the first token, memory, and from where on who is ahead."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

import pandas as pd

from reports.draw import numbers
from reports.draw.figure import Panel, Picture, Series
from reports.draw.table import Table
from reports.reading import Kind, Reading, Row
from reports.records.record import Record
from reports.results import Results
from reports.statistics.bands import spread
from reports.views import crossings, curves, totals
from reports.views.processes import BETWEEN, on, pooled
from reports.views.view import Section, View, disturbed_note, eager_note, parts, timed
from rwkv_core.dtypes import DTYPES

ALIKE = ["machine", "device", "dtype", "threads", "batch", "weights"]
SHOWN = {  # picture: metric, title, x, unit, what its values are divided by
    "token": ("step_s", "Time a token against context", "tokens of context", "milliseconds a token", 1e-3),
    "first": ("first_token_s", "Time to the first token against the prompt", "tokens of the prompt", "seconds", 1.0),
    "memory": ("peak_bytes", "Memory against context", "tokens of context", "GB", 1e9),
}
TEXT = (
    "A context of random tokens is read once, in chunks; at each stop some tokens are generated from the same cache or "
    "state, so that a point is what a token takes at that context. Every family carries its cache or state. "
    f"{BETWEEN.capitalize()}: hence several processes."
)
BOUND = (
    "share of the bound: the least time that this device could take, over the time taken. It is that of reading "
    "weights and cache or state at the bandwidth measured in the same process, or of the products' operations at the "
    "speed measured there, whichever takes longer. peak: weights, cache or state, and what a chunk or a step takes "
    "beyond them."
)


def rows(record: Record) -> Iterator[Row]:
    """At each context the seconds of a token (the median of each repeat) and of the first one, with their spread; the
    least seconds that a token could take; bytes of the cache or state, and in all; joules a token.
    """
    for row in _rows(record):
        yield {"disturbed": False, **row, "process": record.cell.params["process"]}  # bytes are never


def _quiet(repeats: list[Any], disturbed: list[bool]) -> tuple[list[Any], bool]:
    """The repeats that nothing disturbed, all of them where each was; and whether each was."""
    quiet = [one for one, was in zip(repeats, disturbed, strict=True) if not was]
    return quiet or repeats, not quiet


def _rows(record: Record) -> Iterator[Row]:
    spec, batch = record.cell.model, record.cell.params["batch"]
    assert spec is not None
    metrics = record.metrics
    weights = metrics["parameter_bytes"] - spec.lookup_bytes(record.cell.dtype, record.cell.device)
    for name in ("parameter_bytes", "bandwidth", "operations"):
        yield {"metric": name, "value": metrics[name]}
    yield {"metric": "chunk_tokens", "value": record.cell.params["chunk"]}
    operations = 2 * batch * (metrics["parameters"] - spec.lookup_parameters)
    for point in record.samples["points"]:
        at = point["context_tokens"]
        steps, disturbed = _quiet(point["step_seconds"], point["step_disturbed"])
        yield spread("step_s", map(statistics.median, steps), tokens=at, disturbed=disturbed)
        cuts = [statistics.quantiles(run, n=10, method="inclusive")[-1] for run in steps]
        yield spread("step_p90_s", cuts, tokens=at, disturbed=disturbed)
        firsts, disturbed = _quiet(point["first_token_seconds"], point["first_token_disturbed"])
        yield spread("first_token_s", firsts, tokens=at, disturbed=disturbed)
        working = max(point["chunk_bytes"], point["step_bytes"])
        read = weights + point["state_bytes"]
        least = max(read / metrics["bandwidth"], operations / metrics["operations"])
        values = {
            "read_bytes": read,
            "step_operations": operations,
            "bound_s": least,
            "state_bytes": point["state_bytes"],
            "working_bytes": working,
            "peak_bytes": metrics["parameter_bytes"] + point["state_bytes"] + working,
            "disagreement": point["disagreement"],
        }
        yield from ({"metric": metric, "value": value, "tokens": at} for metric, value in values.items())
        if None not in point["joules"]:
            made = batch * len(point["step_seconds"][0])
            yield spread("joules", [joules / made for joules in point["joules"]], tokens=at)
    if spec.max_tokens is not None:
        yield {"metric": "most_tokens", "value": spec.max_tokens}
    if "ended" in metrics:
        yield {"metric": "ended", "value": record.samples["points"][-1]["context_tokens"], "why": metrics["ended"]}


def views(results: Results) -> Iterator[View]:
    """One section for each machine, device, type and batch: the widest type and one sequence first."""
    frame = pooled(results.frame("decode"))
    if frame.empty:
        return
    frame = frame.assign(order=frame["dtype"].map(DTYPES.index)).sort_values(["order", "batch"], kind="stable")
    for number, _, part in parts(frame, ALIKE):
        first = part.iloc[0]
        runs = f"{part.repeats.max():.0f} runs, processes: {numbers.span(part.processes.min(), part.processes.max())}"
        footer = f"{on(part)} · batch {first.batch} · median of {runs}"
        pictures = [_picture(part, f"decode{number}-{kind}", footer, *shown) for kind, shown in SHOWN.items()]
        pairs = list(crossings.pairs(part))
        if pairs and (maps := totals.picture(pairs, f"totals{number}", footer)):
            pictures.append(maps)
        crossed = crossings.tables(pairs, f"crossing{number}")
        tables = [*crossed, _table(part, f"decode{number}")]
        title = f"Generation against context, {first.machine}, {first.device} {first['dtype']}, batch {first.batch}"
        text = [TEXT, *_ends(part), f"{footer}."]
        yield View(
            f"decode{number}",
            title,
            text,
            tables,
            pictures,
            crossed[0] if crossed else None,
            [comparison for pair in pairs for comparison in crossings.comparisons(pair)],
        )


def _ends(part: pd.DataFrame) -> list[str]:
    """Why some curves end before others."""
    ended = part[part.metric == "ended"].drop_duplicates("label")
    said = [f"{row['label']} at {row['value']:,.0f} tokens ({row['why']})" for row in ended.to_dict("records")]
    return [f"Curves end early: {'; '.join(said)}."] if said else []


def _picture(
    part: pd.DataFrame, name: str, footer: str, metric: str, title: str, x_title: str, unit: str, scale: float
) -> Picture:
    panels = []
    points = part[part.metric == metric].sort_values(["at_best", "tokens"], ascending=[False, True], kind="stable")
    for size, chosen in curves.classes(points):
        series = []
        for label, one in chosen.groupby("label", sort=False):
            x, y = list(one.tokens), list(one.value / scale)
            if one.get("band_low", one.value).isna().any() or metric == "peak_bytes":  # counted, and not repeated
                series.append(Series(str(label), one.family.iloc[0], x, y))
                continue
            low, high = (list(one[band] / scale) for band in ("band_low", "band_high"))
            apart = [(at, value / scale) for at, values in zip(x, one.apart, strict=True) for value in values]
            crossed = list(one.disturbed)
            series.append(Series(str(label), one.family.iloc[0], x, y, low, high, apart=apart, crossed=crossed))
        panels.append(Panel(f"{size} parameters", x_title, unit, series, log_x=2, log_y=10))
    return Picture(name, title, panels, footer)


def _table(part: pd.DataFrame, name: str) -> Table:
    """A line a model and context."""
    lines = []
    for label, one in part.sort_values("parameters", kind="stable").groupby("label", sort=False):
        values: dict[str, Any] = {str(metric): rows.set_index("tokens") for metric, rows in one.groupby("metric")}
        for at, step in values["step_s"].sort_index().iterrows():
            cell = {
                "model": label,
                "context": numbers.count(at),
                "ms a token": timed(step, 1),
                "p90, ms": timed(values["step_p90_s"].loc[at], 1),
                "tokens/s": f"{step.batch / step.value:.1f}",
                "share of the bound": numbers.percent(values["bound_s"].value[at] / step.value, digits=0) + " %",
                "first token, ms": timed(values["first_token_s"].loc[at], 0),
                "cache or state": numbers.mebibytes(values["state_bytes"].value[at]),
                "peak": numbers.mebibytes(values["peak_bytes"].value[at]),
            }
            if "joules" in values:
                cell |= {"J a token": numbers.seconds(values["joules"].value[at])}
            lines.append(cell)
    note = f"Medians, in brackets the least and the largest. {BOUND}" + eager_note(part) + disturbed_note(part)
    return Table(name, "Time and memory at each context", pd.DataFrame(lines), note)


APART = {"batch", "contexts", "graph", "process", "repeats"}
COMPARED: dict[str, Kind] = {"step_s": "time", "first_token_s": "time", "state_bytes": "bytes", "peak_bytes": "bytes"}
SECTION = Section(views, {"decode": Reading(rows, APART, oldest=2, compared=COMPARED)})
