"""Answers to prompts in several orders: scores, what guessing gives, and one order against another, item by item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from reports.paired import mcnemar

RESAMPLES = 2000  # of a bootstrap
METRICS = ("accuracy", "macro_f1")


class Scored(NamedTuple):
    """A metric, its standard error over resampled items, and its floors: a guess, and always the best one label."""

    value: float
    stderr: float
    chance: float
    fixed: float


class Effect(NamedTuple):
    """The second order minus the first, its 95 % interval over resampled items, items right in one order alone, and
    McNemar's exact p.
    """

    difference: float
    low: float
    high: float
    first_only: int
    second_only: int
    p: float


def score(items: Sequence[Mapping[str, Any]], labels: int, metric: str) -> Scored:
    """Of answered items: {gold: numbers of right labels, answer: a number or None}. An answer that could not be read
    counts as wrong.
    """
    gold, answers = _indicators(items, labels)
    once = np.ones((1, len(items)))
    fixed = max(_metric(metric, once, gold, np.eye(labels, dtype=bool)[[k] * len(items)])[0] for k in range(labels))
    return Scored(
        float(_metric(metric, once, gold, answers)[0]),
        float(_metric(metric, _resampled(len(items)), gold, answers).std(ddof=1)),
        _chance(metric, gold),
        float(fixed),
    )


def effect(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]], labels: int, metric: str) -> Effect:
    """Two orders of the same items. Raises ValueError where the items are not the same."""
    if [(item["doc"], item["gold"]) for item in first] != [(item["doc"], item["gold"]) for item in second]:
        raise ValueError("not the same items")
    gold, one = _indicators(first, labels)
    _, other = _indicators(second, labels)
    once, weights = np.ones((1, len(first))), _resampled(len(first))
    value = (_metric(metric, once, gold, other) - _metric(metric, once, gold, one))[0]
    low, high = np.quantile(_metric(metric, weights, gold, other) - _metric(metric, weights, gold, one), [0.025, 0.975])
    right, also = (gold & one).any(1), (gold & other).any(1)
    only = int((right & ~also).sum()), int((also & ~right).sum())
    return Effect(float(value), float(low), float(high), *only, mcnemar(*only))


def _indicators(items: Sequence[Mapping[str, Any]], labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Which labels are right, and which was answered: [items, labels] each."""
    gold, answers = np.zeros((2, len(items), labels), dtype=bool)
    for row, item in enumerate(items):
        gold[row, item["gold"]] = True
        if item["answer"] is not None:
            answers[row, item["answer"]] = True
    return gold, answers


def _resampled(items: int) -> np.ndarray:
    """How often each item is drawn in each resample [RESAMPLES, items], always the same."""
    return np.random.default_rng(0).multinomial(items, np.full(items, 1 / items), RESAMPLES).astype(float)


def _metric(metric: str, weights: np.ndarray, gold: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """weights [R, items] -> [R]. Macro-F1 is the mean over the labels that are right somewhere; in a resample, over
    those of them that are right or answered in it.
    """
    if metric == "accuracy":
        right: np.ndarray = weights @ (gold & answers).any(1) / weights.sum(1)
        return right
    seen = gold.any(0)
    hits, sums = (weights @ part[:, seen] for part in ((gold & answers).astype(float), gold.astype(float) + answers))
    there = sums > 0
    return (2 * hits / np.where(there, sums, 1)).sum(1) / there.sum(1)


def _chance(metric: str, gold: np.ndarray) -> float:
    """Of a uniform guess, in expectation (for F1 the ratio of expectations)."""
    labels, items = gold.shape[1], len(gold)
    if metric == "accuracy":
        return float(gold.sum(1).mean() / labels)
    own = gold.sum(0)
    return float((2 * own / (items + labels * own))[own > 0].mean())
