"""What the views are made from: the records of a page and their rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from reports.reading import Reading, Row
from reports.records.record import Record
from reports.rows import from_records


def key(record: Record) -> tuple[str, str]:
    """The cell and the machine: the same cell on another machine is another number."""
    return record.id, record.machine


class Results:
    """records: as read. rows: of all of them, by the readings of their experiments. versions: the present one of each
    experiment, as far as it is known.
    """

    def __init__(self, records: Iterable[Record], readings: Mapping[str, Reading], versions: Mapping[str, int]) -> None:
        self.records = list(records)
        self.versions = versions
        self.rows = from_records(self.records, readings)
        self._by_key = {key(record): record for record in self.records}

    def frame(self, *experiments: str) -> pd.DataFrame:
        """The rows of these experiments that have a value, as a new frame; without a column where there are none."""
        rows = [row for row in self.rows if row["experiment"] in experiments and row["metric"] != "status"]
        return pd.DataFrame(rows)

    def refused(self, *experiments: str) -> list[Row]:
        """The rows of these experiments (of all, if none is named) that say why a cell has no value or a disturbed
        one.
        """
        rows = [row for row in self.rows if row["metric"] == "status"]
        return [row for row in rows if not experiments or row["experiment"] in experiments]

    def records_of(self, frame: pd.DataFrame) -> list[Record]:
        """The records whose rows these are, in their order here."""
        keys = set(zip(frame.cell, frame.machine, strict=True))
        return [record for record in self.records if key(record) in keys]

    def items(self, cell: str, machine: str) -> list[dict[str, Any]]:
        """What was recorded for each item of a cell's task. Raises KeyError where the machine did not measure it."""
        items: list[dict[str, Any]] = self._by_key[cell, machine].samples["items"]
        return items
