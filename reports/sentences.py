"""Comparisons of two contenders -> sentences: who is ahead, by how much, and where no difference is shown.

The views make the comparisons from rows; nobody writes such a sentence by hand. Wins and losses stand in one sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from reports.draw import numbers
from reports.statistics import holm

LEVEL = 0.05  # of the tests of one page together
FEW_SEEDS = 3  # of fewer nothing is named
ONE_TRAINING = "One training of each: this compares these weights and says nothing of the architectures."
ALIKE = 0.01  # bytes that differ by less are not named
NOISE = 1.1  # ratios of times nearer to 1 are not named: another process, or another day, may turn them round


class Words(NamedTuple):
    """What stands before those that the subject is ahead of, those that it is behind, and the others."""

    ahead: str
    behind: str
    neither: str


ON = Words("ahead on", "behind on", "no difference shown on")  # tasks
AT = Words("ahead at", "behind at", "no difference shown at")  # lengths and sizes
TIME = Words("faster than", "slower than", "no difference shown from")
SIZE = Words("smaller than", "larger than", "as large as")


@dataclass(frozen=True)
class Comparison:
    """One contender beside another in one place.

    heading: what the sentence begins with: the quantity, the subject, and whom it is compared with where that is one.
    item: what a list of such comparisons is of: a task, a length, another contender.
    lead: by how much the subject is better, in any unit; below zero where it is worse.
    size: the same as it is displayed, with its interval.
    p: of no difference, two-sided, before correction; None where none is reckoned and `apart` decides.
    apart: whether the interval, or the repeats of both sides, leave "no difference" out.
    undecided: why nothing can be said of this one, whatever its p; empty where something can.
    caution: what a reader must know before he goes on from it, a sentence.
    """

    heading: str
    words: Words
    item: str
    lead: float
    size: str
    p: float | None = None
    apart: bool = False
    undecided: str = ""
    caution: str = ""


def beyond_noise(low: float, high: float) -> bool:
    """Whether all ratios of times from `low` to `high` lie beyond what noise may do."""
    return low > NOISE or high < 1 / NOISE


def beyond_alike(low: float, high: float) -> bool:
    """Whether all ratios of bytes from `low` to `high` are named: bytes are counted, and so the same each time."""
    return low > 1 + ALIKE or high < 1 - ALIKE


def of_bytes(heading: str, words: Words, item: str, one: float, other: float) -> Comparison:
    """Of two numbers of bytes: named from one in a hundred on."""
    ratio, size = one / other, f"{numbers.mebibytes(one)} beside {numbers.mebibytes(other)}"
    return Comparison(heading, words, item, 1 - ratio, size, apart=beyond_alike(ratio, ratio))


def of_page(views: Sequence[Sequence[Comparison]]) -> list[list[str]]:
    """The sentences of each view; the tests of all of them are corrected together (Holm)."""
    every = [comparison for view in views for comparison in view]
    tested = [comparison for comparison in every if comparison.p is not None]
    corrected = holm.adjusted([comparison.p for comparison in tested if comparison.p is not None])
    of = {id(comparison): p for comparison, p in zip(tested, corrected, strict=True)}
    shown = {id(one): of[id(one)] < LEVEL if id(one) in of else one.apart for one in every}
    return [_sentences(view, shown, len(tested)) for view in views]


def _sentences(view: Sequence[Comparison], shown: Mapping[int, bool], tests: int) -> list[str]:
    """First what holds for all of them, then one a heading and caution."""
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for one in view:
        groups.setdefault((one.heading, one.caution), []).append(one)
    cautions = {caution for _, caution in groups}
    of_all = cautions.pop() if len(cautions) == 1 else ""
    rules = [of_all] if of_all else []
    if any(one.p is not None for one in view):
        rules.append(
            f"A difference is named where p is below {LEVEL:g} after all {tests} tests of this page are corrected "
            "together (Holm); the intervals are not corrected."
        )
    said = [(_sentence(heading, group, shown), caution) for (heading, caution), group in groups.items()]
    return [*rules, *(sentence if of_all or not caution else f"{sentence} {caution}" for sentence, caution in said)]


def _sentence(heading: str, group: Sequence[Comparison], shown: Mapping[int, bool]) -> str:
    words = group[0].words
    lists: dict[str, list[str]] = {words.ahead: [], words.behind: [], words.neither: []}
    for one in group:
        named = f"{one.item}: {one.size}"
        if one.undecided:
            lists.setdefault(f"not compared, since {one.undecided}:", []).append(named)
        elif not shown[id(one)] or one.lead == 0:
            lists[words.neither].append(one.item)
        else:
            lists[words.ahead if one.lead > 0 else words.behind].append(named)
    said = "; ".join(f"{place} {', '.join(items)}" for place, items in lists.items() if items)
    return f"{heading}: {said}."
