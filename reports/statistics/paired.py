"""Two models on the same items: who is right where the other is wrong."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ALL_RIGHT = "both are right on every item"
TURNED = "more items are right on one side and more questions on the other"


@dataclass(frozen=True)
class Paired:
    """first_only: items that only the first model gets right. difference: first minus second, of the metric's mean;
    low, high: its 95 % interval; p: McNemar's exact test of equal error rates, two-sided, over questions: each counts
    for the model that gets more of its items right. lead: questions of the first minus those of the second.
    all_right: both models are, on every item.
    """

    items: int
    first_only: int
    second_only: int
    difference: float
    low: float
    high: float
    p: float
    lead: int
    all_right: bool

    @property
    def undecided(self) -> str:
        """Why the test says nothing of the difference of the means; empty where it does."""
        if self.all_right:
            return ALL_RIGHT
        return TURNED if self.lead * self.difference < 0 else ""


def compare(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]], metric: str) -> Paired:
    """The items of two records of one task, in the same order, by a metric of 0 and 1 an item.

    The interval is the normal one of the mean paired difference, clustered by question. Raises ValueError where the
    items are not the same.
    """
    if [item["doc"] for item in first] != [item["doc"] for item in second]:
        raise ValueError("not the same items")
    differences = [float(a[metric]) - float(b[metric]) for a, b in zip(first, second, strict=True)]
    wins, losses = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    mean = statistics.fmean(differences)
    by_question: dict[int, list[float]] = defaultdict(list)
    for item, difference in zip(first, differences, strict=True):
        by_question[item.get("question", item["doc"])].append(difference)
    sums = [sum(of_question) - mean * len(of_question) for of_question in by_question.values()]
    spread = statistics.stdev(sums) * math.sqrt(len(sums)) / len(first) if len(sums) > 1 else math.inf
    signs = [sum(of_question) for of_question in by_question.values()]
    won, lost = sum(sign > 0 for sign in signs), sum(sign < 0 for sign in signs)
    reach = statistics.NormalDist().inv_cdf(0.975) * spread
    all_right = all(float(item[metric]) == 1 for item in (*first, *second))
    low, high, p = mean - reach, mean + reach, mcnemar(won, lost)
    return Paired(len(differences), wins, losses, mean, low, high, p, won - lost, all_right)


def mcnemar(wins: int, losses: int) -> float:
    """The two-sided probability of a split at least as uneven if both were equally likely (exact, binomial)."""
    trials = wins + losses
    tail = sum(math.comb(trials, k) for k in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / 2**trials)
