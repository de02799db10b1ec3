"""Cells that are not worth a try: they are larger than one that ran out of memory or failed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bench import run
from bench.experiments import EXPERIMENTS
from bench.matrix import Cell
from reports.records.record import Record


class Unfit:
    """Records without a number, found by what a larger cell has in common with theirs, so that a look-up does not grow
    with their number.
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._smallest: dict[tuple[Any, ...], list[tuple[Cell, Record]]] = {}
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """From now on no cell that is larger than this record's is worth a try."""
        if record.cell["experiment"] not in EXPERIMENTS:  # of another version of this program
            return
        cell = Cell.from_dict(record.cell)
        alike = self._smallest.setdefault(_common(cell), [])
        if not any(cell == smaller or cell.larger_than(smaller) for smaller, _ in alike):
            alike.append((cell, record))

    def refusal(self, cell: Cell) -> Record | None:
        """The record of a cell that is not run, with the status and the name of the smaller one; else None."""
        for smaller, record in self._smallest.get(_common(cell), []):
            if cell.larger_than(smaller):
                return run.without_result(cell, record.status, f"not run: {record.status} already at {record.id}")
        return None


def _common(cell: Cell) -> tuple[Any, ...]:
    """What is the same in two cells of which one is larger."""
    grows = EXPERIMENTS[cell.experiment].grows
    same = sorted((key, value) for key, value in cell.params.items() if key not in grows)
    return cell.experiment, cell.version, cell.group, tuple(same)
