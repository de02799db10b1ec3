"""Seconds of several tasks by two programs, one of them at several batch sizes -> ratios of their sums, and of each."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import NamedTuple


class Times(NamedTuple):
    """Seconds of one task: ours, and theirs by batch size."""

    ours: float
    theirs: Mapping[int, float]


Tasks = Mapping[str, Times]  # by the task's name


def best(tasks: Tasks) -> int:
    """The batch size at which all of the tasks together take the least time; of several the smallest."""
    shared = set.intersection(*(set(times.theirs) for times in tasks.values()))
    return min(sorted(shared), key=lambda size: sum(times.theirs[size] for times in tasks.values()))


def ratio(tasks: Tasks, size: int) -> float:
    """Of the sums: theirs, at one batch size, over ours."""
    return sum(times.theirs[size] for times in tasks.values()) / sum(times.ours for times in tasks.values())


def geometric_mean(tasks: Tasks, sizes: Mapping[str, int]) -> float:
    """Of the tasks' ratios, each at its size."""
    return statistics.geometric_mean(times.theirs[sizes[task]] / times.ours for task, times in tasks.items())


def largest(tasks: Tasks, size: int) -> tuple[str, float | None]:
    """The task with the largest part of the difference of the sums, and its share; None where theirs is not larger."""
    differences = {task: times.theirs[size] - times.ours for task, times in tasks.items()}
    name, whole = max(differences, key=differences.__getitem__), sum(differences.values())
    return name, differences[name] / whole if whole > 0 else None
