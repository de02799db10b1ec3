"""What a model would take at a context and a batch that were not measured, from those that were.

A step reads the weights once, computes for each sequence and reads each sequence's cache: its seconds are
a + c b + d b n for a batch b at n tokens. Between measured contexts of a measured batch, the line between the two is
taken instead.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

GROWING = ("state_bytes", "working_bytes")  # with the context and the batch


class Estimate(NamedTuple):
    """A value with what it may be at least and at most; why it lies outside what was measured, empty inside."""

    value: float
    low: float
    high: float
    extrapolated: str = ""


class Forecast:
    """Of one model on one device in one type: rows of the experiment decode, of one batch or more.

    Raises ValueError where there is no context that was measured.
    """

    def __init__(self, rows: pd.DataFrame) -> None:
        self.rows = rows
        self.batches = sorted(int(batch) for batch in rows[rows.metric == "step_s"].batch.unique())
        if not self.batches:
            raise ValueError("no step was measured")
        largest = rows.groupby("metric")[["value", "tokens"]].max()
        self.stored, self.chunk = (float(largest.value[name]) for name in ("parameter_bytes", "chunk_tokens"))
        self.longest_measured = int(largest.tokens["step_s"])  # tokens of context
        columns = ["tokens", "batch", "value"]
        self.points = {name: rows[rows.metric == name][columns].to_numpy(float) for name in GROWING}

    def step(self, context: int, batch: int) -> Estimate:
        """Seconds of a token of each sequence."""
        return self._of("step_s", context, batch)

    def first_token(self, prompt: int, batch: int) -> Estimate:
        """Seconds from a prompt to the first token after it."""
        return self._of("first_token_s", prompt, batch)

    def memory(self, context: int, batch: int) -> float:
        """Bytes of weights, of caches or states, and of what a chunk or a step takes beyond them; the latter two grow
        with the batch. A chunk takes no more in a context beyond it, unless more was measured there.
        """
        within = context if self.chunk < self.longest_measured else min(context, self.chunk)
        state, working = (self._a_sequence(metric, batch) for metric in GROWING)
        return self.stored + batch * (_along(state, context) + _along(working, within))

    def _a_sequence(self, metric: str, batch: int) -> dict[float, float]:
        """Bytes at each context, of one sequence of the nearest batch that was measured there."""
        points = self.points[metric]
        farthest_first = points[np.argsort(-np.abs(points[:, 1] - batch), kind="stable")]
        return {tokens: value / of for tokens, of, value in farthest_first.tolist()}

    def longest(self, bytes_: float, batch: int) -> float:
        """The most tokens of context that so much memory holds; inf where it does not depend on them, 0 where not one
        fits.
        """
        return _most(lambda context: self.memory(context, batch) <= bytes_, 1 << 24)

    def largest_batch(self, bytes_: float, context: int) -> float:
        """The most sequences at that context that so much memory holds."""
        return _most(lambda batch: self.memory(context, batch) <= bytes_, 1 << 20)

    def _of(self, metric: str, context: int, batch: int) -> Estimate:
        measured = self.rows[(self.rows.metric == metric) & (self.rows.batch == batch)].sort_values("tokens")
        if len(measured) and measured.tokens.min() <= context <= measured.tokens.max():
            value, low, high = (
                float(np.interp(context, measured.tokens, measured[key])) for key in ("value", "low", "high")
            )
            return Estimate(value, low, high)
        every = self.rows[self.rows.metric == metric]
        if len(self.batches) == 1 and batch != self.batches[0]:
            return self._other_batch(metric, context, batch, self._outside(every, context, batch))
        terms = _terms(metric, every.tokens.to_numpy(float), every.batch.to_numpy(float))
        fitted = _fit(terms, every.value.to_numpy(float))
        value = float((_terms(metric, np.array([context]), np.array([batch])) @ fitted)[0])
        errors = terms @ fitted / every.value.to_numpy(float)
        low, high = value / max(errors.max(), 1.0), value / min(errors.min(), 1.0)
        return Estimate(value, low, high, self._outside(every, context, batch))

    def _other_batch(self, metric: str, context: int, batch: int, why: str) -> Estimate:
        """Where one batch alone was measured: between the time of that and the time of one such batch after another."""
        (measured,) = self.batches
        _, least, most, _ = self._of(metric, context, measured)
        least, most = sorted((least, most * batch / measured))
        return Estimate(math.sqrt(least * most), least, most, why)

    def _outside(self, every: pd.DataFrame, context: int, batch: int) -> str:
        longest, shortest = int(every.tokens.max()), int(every.tokens.min())
        why = []
        if not shortest <= context <= longest:
            why.append(f"contexts of {shortest:,} to {longest:,} tokens")
        if batch not in self.batches:
            why.append(f"batches of {', '.join(map(str, self.batches))}")
        return f"measured: {' and '.join(why)}"


def _along(points: dict[float, float], context: float) -> float:
    """A value between measured contexts, or beyond them as it grew between the last two."""
    x, y = zip(*sorted(points.items()), strict=True)
    if context <= x[-1] or len(x) == 1:
        return float(np.interp(context, x, y))
    return float(y[-1] + max(0.0, (y[-1] - y[-2]) / (x[-1] - x[-2])) * (context - x[-1]))


def _most(fits: Callable[[int], bool], bound: int) -> float:
    """The largest whole number that fits, where larger ones need more; inf where `bound` does, 0 where 1 does not."""
    if fits(bound):
        return math.inf
    least, most = 0, bound
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if fits(middle) else (least, middle)
    return float(least)


def _terms(metric: str, contexts: np.ndarray, batches: np.ndarray) -> np.ndarray:
    """[N, 3]: what each of the three parts of a time grows with. A step: nothing, the batch, the tokens of all caches.
    A prompt: nothing, the tokens that are read, the pairs of tokens of attention.
    """
    if metric == "step_s":
        return np.stack([np.ones_like(contexts), batches, batches * contexts], 1).astype(float)
    return np.stack([np.ones_like(contexts), batches * contexts, batches * contexts**2], 1).astype(float)


def _fit(terms: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Coefficients [3], none below zero, of the least squared relative errors: the best over all sets of terms."""
    relative = terms / values[:, None]
    best, least = np.zeros(terms.shape[1]), math.inf
    for size in range(1, min(terms.shape[1], len(values)) + 1):
        for chosen in itertools.combinations(range(terms.shape[1]), size):
            some, *_ = np.linalg.lstsq(relative[:, chosen], np.ones(len(values)), rcond=None)
            error = float(((relative[:, chosen] @ some - 1) ** 2).sum())
            if (some >= 0).all() and error < least:
                best, least = np.zeros(terms.shape[1]), error
                best[list(chosen)] = some
    return best
