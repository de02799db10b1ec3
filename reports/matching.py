"""Two lists of records -> pairs of those that measured the same thing, whichever version, machine or process it was."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from reports import labels
from reports.records.cell import Cell
from reports.records.record import Record

APART = {"process", *labels.WRITTEN}  # parameters that make no other work
REPLACED = "beside others of the same work: earlier ones, or of a machine that the other has not"

Work = frozenset[tuple[str, str]]  # the facts that name what was measured
OfMachine = Mapping[str, list[Record]]  # the records of one work


class Pair(NamedTuple):
    """The same work on one machine of each side: a record a process, of the last version there."""

    first: list[Record]
    second: list[Record]


@dataclass(frozen=True)
class Matched:
    """alone: for each side how many records have no partner, by the reason."""

    pairs: list[Pair]
    alone: tuple[Counter[str], Counter[str]]


def match(first: Sequence[Record], second: Sequence[Record]) -> Matched:
    """The pairs in the order of `first`. Machines that both sides have are matched with themselves; where there is none
    for a work, the machine of each side that measured it last.
    """
    everywhere = _everywhere([*first, *second])
    one, other = _works(first, everywhere), _works(second, everywhere)
    pairs = [
        Pair(_last(one[work][mine]), _last(other[work][theirs]))
        for work in one
        if work in other
        for mine, theirs in _machines(one[work], other[work])
    ]
    alone = _alone(one, other, [pair.first for pair in pairs]), _alone(other, one, [pair.second for pair in pairs])
    return Matched(pairs, alone)


def _everywhere(records: Sequence[Record]) -> dict[str, set[str]]:
    """Of each experiment the parameters that all of its records have: one that came later is only told apart where it
    differs from its default, as in a cell's id.
    """
    of: dict[str, set[str]] = {}
    for record in records:
        names = set(record.cell.params)
        of[record.cell.experiment] = of.get(record.cell.experiment, names) & names
    return of


def _works(records: Sequence[Record], everywhere: Mapping[str, set[str]]) -> Mapping[Work, OfMachine]:
    works: dict[Work, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        works[_work(record.cell, everywhere[record.cell.experiment])][record.machine].append(record)
    return works


def _work(cell: Cell, everywhere: set[str]) -> Work:
    left_out = APART | (cell.params.keys() - everywhere - set(cell.differing))
    facts = {"experiment": cell.experiment, "model": cell.model and cell.model.name, **cell.settings}
    return frozenset((name, str(value)) for name, value in facts.items() if name not in left_out)


def _machines(one: OfMachine, other: OfMachine) -> Iterator[tuple[str, str]]:
    if both := [machine for machine in one if machine in other]:
        yield from zip(both, both, strict=True)
    else:
        yield _latest(one), _latest(other)


def _latest(of_machine: OfMachine) -> str:
    return max(of_machine, key=lambda machine: max(record.provenance["measured_at"] for record in of_machine[machine]))


def _last(records: Sequence[Record]) -> list[Record]:
    """Of the last version the record of each process; of several that which goes before."""
    version = max(record.cell.version for record in records)
    last = sorted((record for record in records if record.cell.version == version), key=lambda record: record.worth)
    return list({record.cell.params.get("process", 1): record for record in last}.values())


def _alone(
    works: Mapping[Work, OfMachine], others: Mapping[Work, OfMachine], used: Sequence[list[Record]]
) -> Counter[str]:
    reasons: Counter[str] = Counter()
    for work, of_machine in works.items():
        reason = REPLACED if work in others else _reason(work, others)
        reasons[reason] += sum(map(len, of_machine.values()))
    reasons[REPLACED] -= sum(map(len, used))
    return +reasons


def _reason(work: Work, others: Mapping[Work, OfMachine]) -> str:
    """In what a work differs from the nearest of the other side."""
    facts = dict(work)
    alike = [other for other in others if ("experiment", facts["experiment"]) in other]
    if not alike:
        return f"{facts['experiment']}, which the other has not"
    nearest = min(alike, key=lambda other: len(work ^ other))
    names = dict.fromkeys(name for name, _ in sorted(work ^ nearest))
    return f"{facts['experiment']} that differ from the nearest in {', '.join(names)}"
