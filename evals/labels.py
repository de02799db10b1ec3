"""Labels as tables hold them, however a spreadsheet has written them back."""

from __future__ import annotations

from typing import Any


def whole(value: Any) -> int | None:
    """The whole number that a label is: 1, 1.0, "1" and "1.0" are the same. None where it is none."""
    if not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):  # of an integer beyond all floats
        return None
    return int(number) if number.is_integer() else None
