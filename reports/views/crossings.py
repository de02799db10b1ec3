"""Two models at growing context: the ratio of their times, and from where on the first is ahead."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pandas as pd

from reports.draw import numbers
from reports.draw.table import Table
from reports.sentences import AT, Comparison, beyond_noise, of_bytes
from reports.statistics.crossing import Crossing, Point, crossing
from reports.views import curves
from reports.views.families import compared
from reports.views.processes import FEW, ONE_PROCESS

QUANTITIES = {"step_s": "a token", "first_token_s": "the first token"}
NOTE = (
    "Ratios of the medians, in brackets what the extremes of both sides allow; below 1 the first is faster. ahead "
    "from: the context from which on the first is faster for good, between two stops taken as straight; in brackets, "
    "from where on some repeats allow it, and from where on all do. > : not up to there. ≤ : at all that was measured."
)


class Pair(NamedTuple):
    """Two models of like size, and the rows of each."""

    size: str
    one: pd.DataFrame
    other: pd.DataFrame


def pairs(part: pd.DataFrame) -> Iterator[Pair]:
    """The rows of two models of like size that are compared, each at its best; nothing that was disturbed."""
    for size, alike in curves.classes(part[~part.disturbed & part.at_best]):
        models = [rows for _, rows in alike.groupby("label", sort=False)]
        for one, other in itertools.permutations(models, 2):
            if compared(one.family.iloc[0], other.family.iloc[0]):
                yield Pair(size, one, other)


def _both(one: pd.DataFrame, other: pd.DataFrame, metric: str) -> tuple[list[float], list[Point], list[Point]]:
    """The contexts at which both have a value, and the values of each."""
    first, second = (rows[rows.metric == metric].set_index("tokens") for rows in (one, other))
    places = sorted({*first.index} & {*second.index})
    points = [[Point(rows.value[n], rows.low[n], rows.high[n]) for n in places] for rows in (first, second)]
    return places, points[0], points[1]


def _ratio(one: Point, other: Point) -> Point:
    return Point(one.value / other.value, one.low / other.high, one.high / other.low)


def comparisons(pair: Pair) -> Iterator[Comparison]:
    """At the shortest and the longest context of both."""
    size, one, other = pair
    names = f"{one.label.iloc[0]} against {other.label.iloc[0]} ({size})"
    for metric, quantity in QUANTITIES.items():
        places, first, second = _both(one, other, metric)
        for i in sorted({0, len(places) - 1}) if places else ():
            ratio = _ratio(first[i], second[i])
            shown = f"{numbers.spread(*ratio, numbers.ratio)} x its time"
            few = min(rows[rows.metric == metric].processes.min() for rows in (one, other)) < FEW
            yield Comparison(
                f"{names}, time of {quantity}",
                AT,
                f"{numbers.count(places[i])} tokens of context",
                1 - ratio.value,
                shown,
                apart=beyond_noise(ratio.low, ratio.high),
                caution=ONE_PROCESS if few else "",
            )
    held = [rows[rows.metric == "state_bytes"].set_index("tokens").value for rows in (one, other)]
    if ends := sorted({*held[0].index} & {*held[1].index}):
        item = f"{numbers.count(ends[-1])} tokens of context"
        yield of_bytes(f"{names}, bytes of cache or state", AT, item, held[0][ends[-1]], held[1][ends[-1]])


def tables(pairs: Sequence[Pair], name: str) -> list[Table]:
    """A line a pair and quantity: the ratio at both ends, and from where on the first is ahead. None without a pair of
    which something was measured undisturbed.
    """
    lines = []
    for _, one, other in pairs:
        for metric, quantity in QUANTITIES.items():
            places, first, second = _both(one, other, metric)
            if len(places) > 1:
                ends = [numbers.spread(*_ratio(first[i], second[i]), numbers.ratio) for i in (0, -1)]
                lines.append(
                    {
                        "first": one.label.iloc[0],
                        "second": other.label.iloc[0],
                        "time of": quantity,
                        "shortest": numbers.count(places[0]),
                        "ratio": ends[0],
                        "longest": numbers.count(places[-1]),
                        "ratio there": ends[1],
                        "ahead from": shown(crossing(places, first, second), places[0], places[-1]),
                    }
                )
    return [Table(name, "From which context on the first is ahead", pd.DataFrame(lines), NOTE)] if lines else []


def shown(where: Crossing, shortest: float, longest: float) -> str:
    """From where on, in brackets the interval. shortest, longest: of the places that were looked at."""

    def place(at: float) -> str:
        if math.isinf(at):
            return f"> {numbers.count(longest)}" if at > 0 else f"≤ {numbers.count(shortest)}"
        return numbers.count(float(f"{at:.2g}"))

    low, high = place(where.low), place(where.high)
    return place(where.at) + (f" ({low} to {high})" if low != high else "")
