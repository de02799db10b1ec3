"""Sequences that ask for what was said before: seeded, with their floors.

The vocabulary's first tokens are marks; the lower half of the rest are keys, the upper half values. A target is the
token that follows, -1 where none is asked for.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

ASK, NOW, MARKS = 0, 1, 2  # a question follows; the answer follows; how many marks there are
SKEW = 0.01  # Zoology's power_a: where there are more places than queries, most come soon after the pairs
RULE_SAMPLE = 20_000


@dataclass(frozen=True)
class Sequences:
    """tokens, targets: [N, T]. rule: what the best rule that looks nothing up scores, in expectation."""

    tokens: np.ndarray
    targets: np.ndarray
    rule: float

    @property
    def chance(self) -> float:
        """Of a guess among the tokens that are ever right."""
        return 1 / len(np.unique(self.targets[self.targets >= 0]))

    @property
    def majority(self) -> float:
        """Of always the most frequent right token."""
        answers = self.targets[self.targets >= 0]
        return float(np.unique(answers, return_counts=True)[1].max() / len(answers))


def mqar(rng: np.random.Generator, count: int, size: int, length: int, vocabulary: int, alphabet: int) -> Sequences:
    """Multi-query associative recall (Zoology, arXiv:2312.04927): `size` pairs of key and value, then every key once
    more among random tokens; its value is asked for.
    """
    keys, values = _pairs(rng, count, size, vocabulary, alphabet)
    tokens = rng.integers(MARKS, vocabulary, (count, length))
    tokens[:, 0 : 2 * size : 2], tokens[:, 1 : 2 * size : 2] = keys, values
    at = 2 * size + 2 * _places(rng, count, size, length)
    targets = np.full_like(tokens, -1)
    np.put_along_axis(tokens, at, keys, 1)
    np.put_along_axis(targets, at, values, 1)
    return Sequences(tokens, targets, _by_rank(size, length))


def _places(rng: np.random.Generator, count: int, size: int, length: int) -> np.ndarray:
    """Where each pair's query stands, [count, size], drawn as by numpy's choice without repeats."""
    places = (length - 2 * size) // 2
    weights = np.log(SKEW * np.arange(1, places + 1) ** (SKEW - 1.0))
    return np.argsort(-(weights + rng.gumbel(size=(count, places))), axis=1)[:, :size]


@functools.cache
def _by_rank(size: int, length: int) -> float:
    """What the value scores that is most often right at a query's rank. It is more than one in `size`: the pairs draw
    their places one after the other, so that early ones are asked for early.
    """
    pairs = _places(np.random.default_rng(0), RULE_SAMPLE, size, length).argsort(1)
    return float(np.mean([np.bincount(column).max() for column in pairs.T]) / RULE_SAMPLE)


def query_last(
    rng: np.random.Generator, count: int, size: int, length: int, vocabulary: int, alphabet: int
) -> Sequences:
    """Pairs of key and value, then one key, whose value is asked for. The length follows from the size."""
    return _ordered(rng, count, size, vocabulary, alphabet, first=False)


def query_first(
    rng: np.random.Generator, count: int, size: int, length: int, vocabulary: int, alphabet: int
) -> Sequences:
    """The same with the key that is asked for before the pairs."""
    return _ordered(rng, count, size, vocabulary, alphabet, first=True)


def _ordered(
    rng: np.random.Generator, count: int, size: int, vocabulary: int, alphabet: int, *, first: bool
) -> Sequences:
    keys, values = _pairs(rng, count, size, vocabulary, alphabet)
    pairs = np.stack([keys, values], 2).reshape(count, 2 * size)
    which = rng.integers(size, size=(count, 1))
    question = np.concatenate([np.full((count, 1), ASK), np.take_along_axis(keys, which, 1)], 1)
    now = np.full((count, 1), NOW)
    tokens = np.concatenate([question, pairs, now] if first else [pairs, question, now], 1)
    targets = np.full_like(tokens, -1)
    targets[:, -1:] = np.take_along_axis(values, which, 1)
    return Sequences(tokens, targets, 1 / size)


def copying(rng: np.random.Generator, count: int, size: int, length: int, vocabulary: int, alphabet: int) -> Sequences:
    """`size` values, and all of them once more."""
    values = rng.integers(_middle(vocabulary), vocabulary, (count, size))
    tokens = np.concatenate([values, np.full((count, 1), NOW), values[:, :-1]], 1)
    targets = np.full_like(tokens, -1)
    targets[:, size:] = values
    most = (values[:, :, None] == values[:, None]).sum(2).max(1)  # always the value that was told most often
    return Sequences(tokens, targets, float(most.mean() / size))


def passkey(rng: np.random.Generator, count: int, size: int, length: int, vocabulary: int, alphabet: int) -> Sequences:
    """A marked value, `size` random keys, and the mark again: the value is asked for."""
    value = rng.integers(_middle(vocabulary), vocabulary, (count, 1))
    noise = rng.integers(MARKS, _middle(vocabulary), (count, size))
    mark = np.full((count, 1), ASK)
    tokens = np.concatenate([mark, value, noise, mark], 1)
    targets = np.full_like(tokens, -1)
    targets[:, -1:] = value
    return Sequences(tokens, targets, 1 / (vocabulary - _middle(vocabulary)))


def parity(rng: np.random.Generator, count: int, size: int, length: int, vocabulary: int, alphabet: int) -> Sequences:
    """`size` bits; after each, the parity of all so far."""
    bits = rng.integers(2, size=(count, size))
    return Sequences(MARKS + bits, MARKS + bits.cumsum(1) % 2, (1 + (size - 1) / 2) / size)


def permutations(elements: int) -> Callable[..., Sequences]:
    """`size` permutations of so many elements; after each, the product of all so far."""
    every = list(itertools.permutations(range(elements)))
    number = {p: i for i, p in enumerate(every)}
    product = np.array([[number[tuple(a[i] for i in b)] for b in every] for a in every])

    def make(rng: np.random.Generator, count: int, size: int, length: int, vocabulary: int, alphabet: int) -> Sequences:
        tokens = rng.integers(len(every), size=(count, size))
        targets = tokens.copy()
        for step in range(1, size):
            targets[:, step] = product[targets[:, step - 1], tokens[:, step]]
        return Sequences(MARKS + tokens, MARKS + targets, (1 + (size - 1) / len(every)) / size)

    return make


def _middle(vocabulary: int) -> int:
    """The first value; the keys end before it."""
    return (vocabulary + MARKS) // 2


def _pairs(
    rng: np.random.Generator, count: int, size: int, vocabulary: int, alphabet: int
) -> tuple[np.ndarray, np.ndarray]:
    """Keys and values, none twice in a row, [count, size] each; of each kind the first `alphabet`, 0 for all."""
    middle = _middle(vocabulary)
    keys = MARKS + np.argsort(rng.random((count, alphabet or middle - MARKS)), axis=1)[:, :size]
    return keys, middle + np.argsort(rng.random((count, alphabet or vocabulary - middle)), axis=1)[:, :size]


@dataclass(frozen=True)
class Task:
    """title: on the page. make: (rng, count, size, length, vocabulary, alphabet) -> sequences. tokens: that it needs
    beside the marks; None for as many keys and values as there are pairs.
    """

    title: str
    make: Callable[..., Sequences]
    tokens: int | None = None


TASKS = {
    "mqar": Task("Every key again: its value (MQAR)", mqar),
    "query_last": Task("Pairs, then key: its value", query_last),
    "query_first": Task("Key, then pairs: its value", query_first),
    "copying": Task("Copying", copying, 4),
    "passkey": Task("A marked value after so many tokens", passkey, 4),
    "parity": Task("Parity of all bits so far", parity, 2),
    "permutations3": Task("Product of permutations of 3", permutations(3), 6),
    "permutations5": Task("Product of permutations of 5", permutations(5), 120),
}
