"""What a page is made of: sections with text, tables and pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

import configs
from reports.draw.figure import Picture
from reports.draw.table import Table

DISTURBED = "†"  # behind a time
ORDERS = {"family": "families", "mixer": "mixers"}  # column: the file of configs whose order it has


@dataclass(frozen=True)
class View:
    """A section of the page. text: paragraphs, plain."""

    name: str
    title: str
    text: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


def disturbed_note(frame: pd.DataFrame) -> str:
    """What stands below a table of times of which some are disturbed."""
    note = f" {DISTURBED} Something else took the machine meanwhile (see the last sections): compared with nothing."
    return note if frame.disturbed.any() else ""


def ordered(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Sorted by these columns; families and mixers stand as in the figures, RWKV-4 first, unknown ones last."""

    def places(column: pd.Series[Any]) -> pd.Series[Any]:
        if column.name not in ORDERS:
            return column
        names = list(dict.fromkeys([*configs.read(ORDERS[str(column.name)]), *column]))
        return column.map(names.index)

    return frame.sort_values(list(columns), key=places, kind="stable")
