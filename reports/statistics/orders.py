"""Answers to prompts in several orders: scores, what guessing gives, and one order against another, item by item."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from reports.statistics.paired import mcnemar

RESAMPLES = 2000  # of a bootstrap
METRICS = ("accuracy", "macro_f1")


class Scored(NamedTuple):
    """A metric, its standard error over resampled questions, and its floors: a guess, and always the best one label."""

    value: float
    stderr: float
    chance: float
    fixed: float


class Effect(NamedTuple):
    """The second order minus the first over so many items, its 95 % interval over resampled questions, items right in
    one order alone, and McNemar's exact p over questions: each counts for the order that gets more of its items right.
    lead: questions of the second order minus those of the first. unread: answers of either order that name no label.
    """

    items: int
    difference: float
    low: float
    high: float
    first_only: int
    second_only: int
    p: float
    lead: int
    unread: tuple[int, int]


def score(items: Sequence[Mapping[str, Any]], labels: int, metric: str) -> Scored:
    """Of answered items: {gold: numbers of right labels, answer: a number or None}. An answer that could not be read
    counts as wrong.
    """
    gold, answers = _indicators(items, labels)
    once = np.ones((1, len(items)))
    fixed = max(_metric(metric, once, gold, np.eye(labels, dtype=bool)[[k] * len(items)])[0] for k in range(labels))
    return Scored(
        float(_metric(metric, once, gold, answers)[0]),
        float(_metric(metric, _resampled(items), gold, answers).std(ddof=1)),
        _chance(metric, gold),
        float(fixed),
    )


def effect(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]], labels: int, metric: str) -> Effect:
    """Two orders of the same items, less those that were cut in either: they would have lost another part in each.
    Raises ValueError where the items are not the same, or all were cut.
    """
    if [(item["doc"], item["gold"]) for item in first] != [(item["doc"], item["gold"]) for item in second]:
        raise ValueError("not the same items")
    whole = [pair for pair in zip(first, second, strict=True) if not any(item["cut"] for item in pair)]
    if not whole:
        raise ValueError("every item was cut")
    items = [item for item, _ in whole]
    gold, before = _indicators(items, labels)
    _, after = _indicators([item for _, item in whole], labels)

    def difference(weights: np.ndarray) -> np.ndarray:
        return _metric(metric, weights, gold, after) - _metric(metric, weights, gold, before)

    (value,) = difference(np.ones((1, len(items))))
    low, high = np.quantile(difference(_resampled(items)), [0.025, 0.975])
    change = (gold & after).any(1).astype(int) - (gold & before).any(1)
    by_question = np.bincount([item["question"] for item in items], change)
    lost, won = int((by_question < 0).sum()), int((by_question > 0).sum())
    only = int((change < 0).sum()), int((change > 0).sum())
    unread = sum(one["answer"] is None for one, _ in whole), sum(other["answer"] is None for _, other in whole)
    return Effect(len(items), float(value), float(low), float(high), *only, mcnemar(lost, won), won - lost, unread)


def _indicators(items: Sequence[Mapping[str, Any]], labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Which labels are right, and which was answered: [items, labels] each."""
    gold, answers = np.zeros((2, len(items), labels), dtype=bool)
    for row, item in enumerate(items):
        gold[row, item["gold"]] = True
        if item["answer"] is not None:
            answers[row, item["answer"]] = True
    return gold, answers


def _resampled(items: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """How often each item is drawn in each resample [RESAMPLES, items], those of one question together, always the
    same.
    """
    _, questions = np.unique([item["question"] for item in items], return_inverse=True)
    return _draws(int(questions.max()) + 1)[:, questions]


@functools.lru_cache(maxsize=4)
def _draws(questions: int) -> np.ndarray:
    return np.random.default_rng(0).multinomial(questions, np.full(questions, 1 / questions), RESAMPLES).astype(float)


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
    of_label = gold.sum(0)
    return float((2 * of_label / (items + labels * of_label))[of_label > 0].mean())
