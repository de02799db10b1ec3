"""What can be wrong, and what to say of it. Standard library only."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BadInput(Exception):
    """Something the user gave is wrong; the message is one line: what, where, how to mend it."""


class Unsupported(Exception):
    """This model, device or machine cannot do what was asked. A finding, not a fault."""


def did_you_mean(wrong: str, names: Iterable[str]) -> str:
    """What to say after a wrong name: the nearest right one, or all of them."""
    names = list(names)
    nearest = difflib.get_close_matches(wrong, names, n=1)
    return f": did you mean {nearest[0]}?" if nearest else f": one of {', '.join(names)}"
