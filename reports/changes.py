"""Two stores of records, metric by metric: what is worse in the second, what is better, what is not told apart."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from reports.matching import Pair
from reports.measured import Measured, Values, lacked, named, values
from reports.reading import Kind, Reading
from reports.records.record import Record
from reports.sentences import LEVEL, beyond_alike, beyond_noise
from reports.statistics import holm
from reports.views import processes

VERDICTS: Mapping[Kind, tuple[str, str]] = {
    "time": ("slower", "faster"),
    "bytes": ("larger", "smaller"),
    "score": ("worse", "better"),
}
NO_DIFFERENCE, NOT_TESTED = "no difference shown", "not tested"
ONE_REPEAT = "one repeat has no spread"
FEW = f"fewer than {processes.FEW} processes"


@dataclass(frozen=True)
class Change:
    """One metric of the same work in two stores; of a work that one of them has no number of, its status.

    change: the second value over the first, of scores the second minus the first. low, high: what the extremes of both
    allow; of a score that was tested item by item its 95 % interval, of another none. p: of that test, corrected for
    all tests of the stores. note: what a reader must know of the verdict, or why the test says nothing.
    """

    cell: str
    metric: str
    kind: Kind
    first: Measured | None = None
    second: Measured | None = None
    change: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float | None = None
    verdict: str = NOT_TESTED
    note: str = ""

    @property
    def worse(self) -> bool:
        return self.verdict == VERDICTS[self.kind][0]

    @property
    def better(self) -> bool:
        return self.verdict == VERDICTS[self.kind][1]


def of_pairs(
    pairs: Sequence[Pair], readings: Mapping[str, Reading]
) -> tuple[list[Change], tuple[Counter[str], Counter[str]]]:
    """What both sides of the pairs have, and for each side how much is compared with nothing, by the reason.

    readings: of each experiment by its name.
    """
    changes: list[Change] = []
    left_out: tuple[Counter[str], Counter[str]] = Counter(), Counter()
    for pair in pairs:
        for records, reasons in zip(pair, left_out, strict=True):
            reasons.update(record.status for record in records if record.status != "ok")
        states = _state(pair.first), _state(pair.second)
        if states == ("ok", "ok"):
            reading = readings[pair.first[0].cell.experiment]
            one, other = values(pair.first, reading), values(pair.second, reading)
            left_out[0].update(lacked(one, other))
            left_out[1].update(lacked(other, one))
            changes += _of_values(pair, reading, one, other)
        elif "ok" in states and "disturbed" not in states:
            changes.append(_of_states(pair, states))
    return _corrected(changes), left_out


def _state(records: Sequence[Record]) -> str:
    """Of several processes the best status."""
    return max(records, key=lambda record: record.worth).status


def _of_states(pair: Pair, states: tuple[str, str]) -> Change:
    """A work that has a number on one side alone."""
    lost = states[0] == "ok"
    (without, *_), status = (pair.second, states[1]) if lost else (pair.first, states[0])
    why = f"{status} in {'B' if lost else 'A'}: {without.error}"
    return Change(_cell(pair), "status", "score", verdict=VERDICTS["score"][0 if lost else 1], note=why)


def _cell(pair: Pair) -> str:
    """The readable part of its id."""
    return " ".join(word for word in pair.first[0].cell.words if not word.startswith("process="))


def _of_values(pair: Pair, reading: Reading, one: Values, other: Values) -> Iterator[Change]:
    """Each value that both sides have, at the last place that both have."""
    tested, test = (reading.on_items and reading.on_items(pair.second[0], pair.first[0])) or (None, None)
    for name, places in one.items():
        common = places.keys() & other.get(name, {}).keys()
        if not common:
            continue
        place = max(common)
        first, second, kind = places[place], other[name][place], reading.compared[name[0]]
        change = Change(_cell(pair), named(name, place, places), kind, first, second)
        if kind != "score":
            yield _of_repeats(change, first, second)
        elif test and name[0] == tested:
            yield replace(change, change=test.difference, low=test.low, high=test.high, p=test.p, note=test.undecided)
        else:
            yield replace(change, change=second.value - first.value)


def _of_repeats(change: Change, first: Measured, second: Measured) -> Change:
    """The ratio of the medians, and what the extremes of both sides allow."""
    ratio, low, high = (
        _ratio(*sides) for sides in ((second.value, first.value), (second.low, first.high), (second.high, first.low))
    )
    change = replace(change, change=ratio, low=low, high=high)
    if change.kind == "bytes":  # which are the same each time
        return replace(change, verdict=_verdict("bytes", beyond_alike(low, high), ratio > 1))
    if min(first.repeats, second.repeats) == 1:
        return replace(change, note=ONE_REPEAT)
    few = min(first.processes, second.processes) < processes.FEW
    return replace(change, verdict=_verdict("time", beyond_noise(low, high), ratio > 1), note=FEW if few else "")


def _ratio(one: float, other: float) -> float:
    """Of numbers that may be 0, as bytes may."""
    return one / other if other else (math.inf if one else 1.0)


def _corrected(changes: Sequence[Change]) -> list[Change]:
    """The tests of all of them corrected together, with their verdicts."""
    corrected = iter(holm.adjusted([change.p for change in changes if change.p is not None]))
    return [change if change.p is None else _tested(change, next(corrected)) for change in changes]


def _tested(change: Change, p: float) -> Change:
    return replace(change, p=p, verdict=_verdict("score", p < LEVEL and not change.note, change.change < 0))


def _verdict(kind: Kind, apart: bool, worse: bool) -> str:
    return VERDICTS[kind][0 if worse else 1] if apart else NO_DIFFERENCE
