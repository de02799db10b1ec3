"""From where on one of two curves stays below the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Point(NamedTuple):
    """A value with the least and the largest of its repeats."""

    value: float
    low: float
    high: float


class Crossing(NamedTuple):
    """Where the medians cross for good, and the interval that the extremes of both sides leave: from where on the first
    may be below the second, and from where on it is whatever the repeats. -inf: it is all along; inf: not at the end.
    """

    at: float
    low: float
    high: float


def crossing(places: Sequence[float], first: Sequence[Point], second: Sequence[Point]) -> Crossing:
    """From which of the places, which rise, the first curve stays below the second; between two places both are taken
    as straight.
    """
    pairs = list(zip(first, second, strict=True))
    return Crossing(
        _below_from(places, [one.value - other.value for one, other in pairs]),
        _below_from(places, [one.low - other.high for one, other in pairs]),
        _below_from(places, [one.high - other.low for one, other in pairs]),
    )


def _below_from(places: Sequence[float], differences: Sequence[float]) -> float:
    """Where the differences, taken as straight between the places, fall below zero for good."""
    last = max((i for i, difference in enumerate(differences) if difference >= 0), default=None)
    if last is None:
        return -math.inf
    if last == len(places) - 1:
        return math.inf
    before, after = differences[last], differences[last + 1]
    return places[last] + (places[last + 1] - places[last]) * before / (before - after)
