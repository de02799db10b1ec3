"""Cells that are not worth a try: they are larger than one that ran out of memory or failed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bench import run
from bench.cells import alike, larger
from bench.experiments import EXPERIMENTS
from reports.records.cell import Cell
from reports.records.record import Record


class Unfit:
    """Records without a number, found by what a larger cell has in common with theirs, so that a look-up does not grow
    with their number.
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._smallest: dict[tuple[Any, ...], list[Record]] = {}
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """From now on no cell that is larger than this record's is worth a try."""
        if record.cell.experiment not in EXPERIMENTS:  # of another version of this program
            return
        smallest = self._smallest.setdefault(alike(record.cell), [])
        if not any(record.cell == one.cell or larger(record.cell, one.cell) for one in smallest):
            smallest.append(record)

    def refusal(self, cell: Cell) -> Record | None:
        """The record of a cell that is not run, with the status and the name of the smaller one; else None."""
        for record in self._smallest.get(alike(cell), []):
            if larger(cell, record.cell):
                return run.without_result(cell, record.status, f"not run: {record.status} already at {record.id}")
        return None
