"""Views of the encoders: time and memory of a training step against length, each mixer beside attention."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from reports.draw import looks, numbers
from reports.draw.figure import Panel, Picture, Series
from reports.draw.numbers import MIB
from reports.draw.table import Table
from reports.reading import Reading, Row
from reports.records.record import Record
from reports.results import Results
from reports.views import races
from reports.views.families import ordered
from reports.views.view import DISTURBED, Section, View, disturbed_note, parts

WHERE = ["machine", "device"]
WAYS = {"both": "in both directions", "causal": "causal"}
TEXT = (
    "A training step (loss and gradients of one sequence) of Long Range Arena's encoder with each mixer, at one budget "
    "of parameters, for which the feed-forward layers are wider or narrower: the complexity table made visible. Each "
    "mixer took turns with attention in one process; the ratio is of those two. Attention is torch's fused one: its "
    "time grows with the square of the length, its memory does not. Memory is the peak beyond weights and inputs, in "
    "an untimed step."
)


def rows(record: Record) -> Iterator[Row]:
    """The race of a mixer and attention in seconds a training step, and the peak bytes of each."""
    metrics = record.metrics
    titles = {name: looks.mixer(name, title) for name, title in metrics["titles"].items()}
    for row in races.rows(record):
        name = row["contender"]
        mixer = {"title": titles[name], "budget": metrics["budget"][name], "inner": metrics["inner"][name]}
        yield {**row, **mixer}
    shared = {"what": record.cell.params["direction"], "tokens": record.cell.params["tokens"]}
    for name, peak in metrics["peak_bytes"].items():
        yield {"metric": "peak_bytes", "value": peak, "contender": name, "title": titles[name], **shared}


def views(results: Results) -> Iterator[View]:
    """One section for each machine; nothing where no encoder was timed."""
    frame = results.frame("encoders")
    if frame.empty:
        return
    frame["title"] += frame.variant
    frame = ordered(frame, "what", "mixer")
    for number, where, part in parts(frame, WHERE):
        name = f"encoders{number}"
        threads = part.threads.dropna().iloc[0]
        footer = f"{', '.join(map(str, where))} · float32 · threads: {threads:.0f}"
        panels = []
        for way in (way for way in WAYS if way in set(part.what)):
            chosen = part[part.what == way]
            panels.append(_panel(chosen[chosen.metric == "race_s"], f"Time, {WAYS[way]}", "milliseconds", 1e3))
            panels.append(_panel(chosen[chosen.metric == "peak_bytes"], f"Memory, {WAYS[way]}", "MiB", 1 / MIB))
        picture = Picture(name, "A training step of each mixer's encoder", panels, footer)
        yield View(
            name, f"Mixers against length, {', '.join(map(str, where))}", [TEXT], [_table(part, name)], [picture]
        )


def _panel(part: pd.DataFrame, title: str, unit: str, scale: float) -> Panel:
    series = []
    for (mixer, label), line in part.groupby(["contender", "title"], sort=False):
        timed = line.disturbed & (line.metric == "race_s")
        line = line[timed == timed.groupby(line.tokens).transform("min")]  # a disturbed one where there is nothing else
        value = scale * line.groupby("tokens").value.median()  # attention's: of all the cells that it took turns in
        crossed = list(timed[line.index].groupby(line.tokens).any())
        dashed = mixer == "attention"
        series.append(Series(str(label), str(mixer), list(value.index), list(value), dashed=dashed, crossed=crossed))
    return Panel(title, "tokens", unit, series, log_x=2, log_y=10)


def _table(part: pd.DataFrame, name: str) -> Table:
    lengths = sorted(set(part.tokens))
    lines = []
    for (mixer, way, _), cells in part.groupby(["mixer", "what", "variant"], sort=False):
        line = {"mixer": cells[cells.contender == mixer].title.iloc[0], "direction": WAYS[str(way)]}
        line["inner"] = f"{cells[cells.contender == mixer].inner.max():.0f}"
        for tokens in lengths:
            at = cells[cells.tokens == tokens]
            line[numbers.count(tokens)] = _cell(at, str(mixer)) if len(at) else "-"
        lines.append(line)
    note = (
        "Milliseconds (median of the rounds, in brackets the least and the largest), attention's time over this one's "
        "in the same process (above 1: faster than attention), and peak MiB. inner: hidden width of the feed-forward "
        "layers. RWKV-4's and attention's kernels are compiled; what another mixer needs of recurrences is plain torch."
    )
    return Table(name, "A training step against length", pd.DataFrame(lines), note + disturbed_note(part))


def _cell(at: pd.DataFrame, mixer: str) -> str:
    times = at[at.metric == "race_s"].set_index("contender")
    peaks = at[at.metric == "peak_bytes"].set_index("contender").value
    value, low, high = (times[key][mixer] for key in ("value", "low", "high"))
    time = numbers.spread(value, low, high, lambda seconds: numbers.milliseconds(seconds, 0))
    ratio = f"x{numbers.ratio(times.value['attention'] / value)}"
    if at.disturbed.any():
        time, ratio = time + DISTURBED, "-"
    return f"{time}, {ratio}, {peaks[mixer] / MIB:.0f}"


SECTION = Section(views, {"encoders": Reading(rows, apart={"mixer", "direction", "tokens"}, oldest=2)})
