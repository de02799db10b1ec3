"""Families and mixers in the order of configs; which families are ours, and with which each of ours is compared."""

from __future__ import annotations

from typing import Any

import pandas as pd

import configs

ORDERS = {"family": "families", "mixer": "mixers"}  # column: the file of configs whose order it has


def ours(family: str) -> bool:
    """Whether a family is a version of RWKV."""
    return family.startswith("rwkv")


def compared(first: str, second: str) -> bool:
    """Whether comparisons set the family `first` against `second`: each of ours against every other family, and of two
    of ours the one with the later name against the earlier one.
    """
    return ours(first) and first != second and not (ours(second) and first < second)


def ordered(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Sorted by these columns; families and mixers stand as in the figures, ours first, unknown ones last."""

    def places(column: pd.Series[Any]) -> pd.Series[Any]:
        if column.name not in ORDERS:
            return column
        names = list(dict.fromkeys([*configs.read(ORDERS[str(column.name)]), *column]))
        return column.map(names.index)

    return frame.sort_values(list(columns), key=places, kind="stable")
