"""Views of the encoders: time and memory of a training step against length, each mixer beside attention."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import pandas as pd

from reports.draw import looks, numbers
from reports.draw.figure import Panel, Picture, Series
from reports.draw.numbers import MIB
from reports.draw.table import Table
from reports.reading import Kind, Reading, Row
from reports.records.record import Record
from reports.results import Results
from reports.sentences import AT, SIZE, TIME, Comparison, beyond_noise, of_bytes
from reports.statistics.bands import spread
from reports.views import races
from reports.views.families import compared, ordered, ours
from reports.views.view import DISTURBED, Section, View, disturbed_note, parts

WHERE = ["machine", "device"]
ENCODER = ["width", "heads", "attention_inner"]
WAYS = {"both": "in both directions", "causal": "causal"}
TEXT = (
    "A training step (loss and gradients of one sequence) of Long Range Arena's encoder with each mixer, at one budget "
    "of parameters, for which the feed-forward layers are wider or narrower. Each mixer took turns with attention in "
    "one process, a step of the one right beside a step of the other, in changing order; the ratio is taken within "
    "each round. Attention is torch's fused one: its time grows with the square of the length, its memory does not. "
    "Memory is the peak beyond weights and inputs, in an untimed step."
)


def rows(record: Record) -> Iterator[Row]:
    """The race of a mixer and attention in seconds a training step, attention's over the mixer's in each round, and the
    peak bytes of each.
    """
    params, metrics, seconds = record.cell.params, record.metrics, record.samples["seconds"]
    titles = {name: looks.mixer(name, title) for name, title in metrics["titles"].items()}
    size = {key: params[key] for key in ("layers", "width", "heads")} | {"attention_inner": params["inner"]}
    shared = {"what": params["direction"], "tokens": params["tokens"], **size}
    for row in races.rows(record):
        name = row["contender"]
        mixer = {"title": titles[name], "budget": metrics["budget"][name], "inner": metrics["inner"][name]}
        yield {**row, **mixer, **size}
    for name in seconds.keys() - {"attention"}:
        ratios = [theirs / its for theirs, its in zip(seconds["attention"], seconds[name], strict=False)]
        yield {**spread("attention_ratio", ratios, contender=name, title=titles[name]), **shared}
    for name, peak in metrics["peak_bytes"].items():
        yield {"metric": "peak_bytes", "value": peak, "contender": name, "title": titles[name], **shared}


def views(results: Results) -> Iterator[View]:
    """One section for each machine; nothing where no encoder was timed."""
    frame = results.frame("encoders")
    if frame.empty:
        return
    frame["title"] += frame.variant
    frame = ordered(frame, *ENCODER, "what", "mixer")
    for number, where, part in parts(frame, WHERE):
        name = f"encoders{number}"
        layers = " and ".join(f"{count:.0f}" for count in sorted(set(part.layers)))
        on = [*map(str, where), "float32", f"layers: {layers}", f"threads: {part.threads.dropna().iloc[0]:.0f}"]
        tables, panels = [], []
        for _, (width, heads, inner), of_size in parts(part, ENCODER):
            title = (
                f"A training step against length: width {width}, {heads} heads, attention's feed-forward layers {inner}"
            )
            tables.append(_table(of_size, f"{name}-{width}-{heads}-{inner}", title))
            for way in (way for way in WAYS if way in set(of_size.what)):
                chosen, place = of_size[of_size.what == way], f"{WAYS[way]}, width {width}"
                panels.append(_panel(chosen[chosen.metric == "race_s"], f"Time, {place}", "milliseconds", 1e3))
                panels.append(_panel(chosen[chosen.metric == "peak_bytes"], f"Memory, {place}", "MiB", 1 / MIB))
        picture = Picture(name, "A training step of each mixer's encoder", panels, " · ".join(on), columns=2)
        beside = [one for _, _, of_size in parts(part, ENCODER) for one in _comparisons(of_size)]
        yield View(name, f"Mixers against length, {', '.join(on)}", [TEXT], tables, [picture], comparisons=beside)


def _comparisons(of_size: pd.DataFrame) -> Iterator[Comparison]:
    """Each mixer of ours beside attention at every length, and at the shortest and the longest of its lengths beside
    every other mixer, by the ratios of both to attention; in time and in memory.
    """
    ratios = of_size[(of_size.metric == "attention_ratio") & ~of_size.disturbed]
    peaks = of_size[of_size.metric == "peak_bytes"].set_index(["cell", "contender"]).value
    for (way, width), part in ratios.groupby(["what", "width"], sort=False):
        single = part.drop_duplicates(["contender", "variant", "tokens"])
        rows = single.sort_values("tokens", kind="stable").to_dict("records")
        for one in (row for row in rows if ours(row["contender"])):
            place = f"{one['title']} {WAYS[str(way)]}, width {width}"
            step, memory = f"{place}, a training step", f"{place}, peak memory of a training step"
            size = f"attention's time is {numbers.spread(one['value'], one['low'], one['high'], numbers.ratio)} x its"
            apart = beyond_noise(one["low"], one["high"])
            at = f"{numbers.count(one['tokens'])} tokens"
            yield Comparison(f"{step} beside attention", AT, at, one["value"] - 1, size, apart=apart)
            its, attention = (peaks[one["cell"], name] for name in (one["contender"], "attention"))
            yield of_bytes(f"{memory} beside attention's", AT, at, its, attention)
            lengths = [row["tokens"] for row in rows if row["contender"] == one["contender"]]
            for other in rows if one["tokens"] in (min(lengths), max(lengths)) else []:
                if other["tokens"] == one["tokens"] and compared(one["contender"], other["contender"]):
                    yield _beside(f"{step} of {at}", one, other)
                    theirs = peaks[other["cell"], other["contender"]]
                    yield of_bytes(f"{memory} of {at}", SIZE, str(other["title"]), its, theirs)


def _beside(heading: str, one: Mapping[Hashable, Any], other: Mapping[Hashable, Any]) -> Comparison:
    """Two mixers that took turns with attention, not with each other."""
    ratio, low, high = other["value"] / one["value"], other["low"] / one["high"], other["high"] / one["low"]
    size = f"{numbers.spread(ratio, low, high, numbers.ratio)} x its time"
    return Comparison(heading, TIME, str(other["title"]), 1 - ratio, size, apart=beyond_noise(low, high))


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


def _table(part: pd.DataFrame, name: str, title: str) -> Table:
    lengths = sorted(set(part.tokens))
    lines = []
    for (mixer, way, _), cells in part.groupby(["mixer", "what", "variant"], sort=False):
        line = {"mixer": cells[cells.contender == mixer].title.iloc[0], "direction": WAYS[str(way)]}
        line["inner"] = f"{cells[cells.contender == mixer].inner.max():.0f}"
        line["ahead from"] = _ahead_from(cells[(cells.metric == "attention_ratio") & ~cells.disturbed])
        for tokens in lengths:
            at = cells[cells.tokens == tokens]
            line[numbers.count(tokens)] = _cell(at, str(mixer)) if len(at) else "-"
        lines.append(line)
    note = (
        "Milliseconds (median of the rounds, in brackets the least and the largest), attention's time over this one's "
        "(median of the ratios within the rounds, in brackets the least and the largest; above 1: faster than "
        "attention), and peak MiB. ahead from: the length from which on it was faster than attention in every round. "
        "inner: hidden width of the feed-forward layers. The kernels of RWKV, attention and LSTM are compiled; "
        "what another mixer needs of recurrences is plain torch."
    )
    return Table(name, title, pd.DataFrame(lines), note + _attention_note(part) + disturbed_note(part))


def _ahead_from(ratios: pd.DataFrame) -> str:
    lows = ratios.groupby("tokens").low.min().sort_index(ascending=False)
    return numbers.count(lows[(lows > 1).cummin()].index.min())


def _attention_note(part: pd.DataFrame) -> str:
    """How far attention's times in cells that are alike but for the mixer are apart."""
    times = part[(part.metric == "race_s") & (part.contender == "attention") & ~part.disturbed]
    medians = times.groupby(["what", "tokens"]).value
    apart = (medians.max() / medians.min())[medians.count() > 1]
    if apart.empty:
        return ""
    most: tuple[Any, ...] = max((row.value, row.tokens, row.what) for row in apart.reset_index().itertuples())
    factor, tokens, way = most
    return (
        " Attention was timed beside each mixer; its medians at one length differ by a factor of up to "
        f"{numbers.ratio(factor)} ({numbers.count(tokens)} tokens, {WAYS[way]}): compare ratios with each other, times "
        "less so."
    )


def _cell(at: pd.DataFrame, mixer: str) -> str:
    mine: dict[str, Any] = {str(row.metric): row for row in at[at.contender == mixer].itertuples()}
    time, peak, ratio = mine["race_s"], mine["peak_bytes"], mine.get("attention_ratio")
    parts = [numbers.spread(time.value, time.low, time.high, lambda seconds: numbers.milliseconds(seconds, 0))]
    if at.disturbed.any():
        parts = [parts[0] + DISTURBED, "-"]
    elif ratio is not None:
        parts.append(f"x{numbers.spread(ratio.value, ratio.low, ratio.high, numbers.ratio)}")
    return ", ".join([*parts, f"{peak.value / MIB:.0f}"])


APART = {"mixer", "direction", "tokens", "width", "heads", "inner"}
COMPARED: dict[str, Kind] = {"race_s": "time", "peak_bytes": "bytes"}
SECTION = Section(views, {"encoders": Reading(rows, APART, oldest=3, compared=COMPARED)})
