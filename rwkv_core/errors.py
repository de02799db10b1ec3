"""What can be wrong, and what to say of it. Standard library only."""

from __future__ import annotations

import difflib
import errno
import re
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


def out_of_memory(error: Exception) -> bool:
    """Whether an error means that memory ran out; some libraries have no type of their own for it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:  # of a mapping, or a process that cannot start
        return True
    return (
        isinstance(error, RuntimeError)
        and re.search("out of memory|ALLOC_FAILED|allocate memory", str(error)) is not None
    )
