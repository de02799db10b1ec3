"""Several tests at once."""

from __future__ import annotations

from collections.abc import Sequence


def adjusted(ps: Sequence[float]) -> list[float]:
    """Holm's p of each test, in their order: below a level where the step-down procedure rejects at that level, which
    holds the chance of any false rejection among all of them (Holm 1979).
    """
    raised = 0.0
    of_test = dict.fromkeys(range(len(ps)), 1.0)
    for rank, i in enumerate(sorted(of_test, key=ps.__getitem__)):
        raised = max(raised, min(1.0, (len(ps) - rank) * ps[i]))
        of_test[i] = raised
    return list(of_test.values())
