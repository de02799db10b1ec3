"""Which requests share work: token sequences -> leaves (what must be computed) and groups with a common prefix.

All of it counts tokens and knows nothing of tasks: sorted sequences with a common beginning lie side by side, so the
longest common prefixes of neighbours form a tree, in which each node is a possible prefix to compute once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np

SHORT = 16  # a prefix of at most this part of a batch costs little to read again
Tokens = np.ndarray  # [T] of int32: a list of Python's integers takes nine times the memory


class Request(NamedTuple):
    """Score the last `scored` tokens of `tokens`, each given all before it."""

    tokens: Tokens
    scored: int

    @property
    def fed(self) -> Tokens:
        """What the model reads: all but the last token."""
        return self.tokens[:-1]


@dataclass
class Leaf:
    """A sequence that the model reads, and the requests (by number) whose own input is it or its beginning."""

    fed: Tokens
    requests: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """A sequence to feed, `offset` tokens of which are already in the state; requests score within it."""

    tokens: Tokens
    offset: int
    requests: list[int]
    source: int = 0  # which row of the state it goes on from

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Group:
    """Leaves with a common prefix of `prefix` tokens that is computed once; 0: nothing is shared."""

    prefix: int
    leaves: list[Leaf]

    @property
    def computed(self) -> int:
        """Tokens that the model must read."""
        return self.prefix + sum(len(leaf.fed) - self.prefix for leaf in self.leaves)

    @property
    def stem(self) -> Row:
        """What is read once: the prefix, or the only leaf."""
        requests = [number for leaf in self.leaves for number in leaf.requests]
        return Row(self.leaves[0].fed[: self.prefix or None], 0, requests)

    def branches(self, source: int = 0) -> list[Row]:
        """What follows the prefix, if anything does; the prefix's state is row `source` of all that are kept."""
        rest = [leaf for leaf in self.leaves if len(leaf.fed) > self.prefix > 0]
        return [Row(leaf.fed[self.prefix :], self.prefix, leaf.requests, source) for leaf in rest]


def leaves(requests: Sequence[Request]) -> list[Leaf]:
    """The sequences to read, sorted; an input that begins another one rides along with it."""
    keys = [request.fed.astype(">u4").tobytes() for request in requests]  # bytes in the tokens' own order
    distinct: list[Leaf] = []
    longest = None
    for i in sorted(range(len(requests)), key=keys.__getitem__, reverse=True):
        if longest is None or not longest.startswith(keys[i]):
            distinct.append(Leaf(requests[i].fed))
            longest = keys[i]
        distinct[-1].requests.append(i)
    return distinct


def groups(sorted_leaves: Sequence[Leaf], row_tokens: float, copy_share: float) -> list[Group]:
    """The partition of the leaves into groups that saves the most, counted in tokens.

    A group of m leaves with p common tokens saves (m - 1) p tokens and costs `row_tokens` for each
    leaf's state, and `copy_share` of p for copying it. A leaf that nothing is shared with is alone.
    """
    common = np.array([_common(a.fed, b.fed) for a, b in pairwise(sorted_leaves)], dtype=np.int64)

    def best(first: int, end: int) -> tuple[list[Group], float]:
        """The partition of the leaves [first, end) and what it saves: one group of them all, or the best of
        the parts between the seams where they have least in common.
        """
        if end - first == 1:
            return [Group(0, [sorted_leaves[first]])], 0.0
        seams = common[first : end - 1]
        prefix = int(seams.min())
        edges = [first, *(first + 1 + np.flatnonzero(seams == prefix)).tolist(), end]
        parts: list[Group] = []
        apart = 0.0
        for begin, stop in pairwise(edges):
            subgroups, saved = best(begin, stop)
            parts += subgroups
            apart += saved
        rows = end - first
        together = (rows - 1) * prefix - rows * (row_tokens + copy_share * prefix)
        if together > apart:
            return [Group(prefix, list(sorted_leaves[first:end]))], together
        return parts, apart

    return best(0, len(sorted_leaves))[0] if sorted_leaves else []


def fitting(plan: Sequence[Group], most_tokens: int) -> tuple[list[Group], list[Group]]:
    """Groups of at most so many tokens, and larger ones. Of the latter, those with a short prefix are cut into several
    that fit, each of which reads the prefix again.
    """
    fit, larger = [], []
    for group in plan:
        if group.computed <= most_tokens or len(group.leaves) == 1:
            fit.append(group)
        elif group.prefix * SHORT > most_tokens:
            larger.append(group)
        else:
            sizes = [len(leaf.fed) - group.prefix for leaf in group.leaves]
            cuts = even_cuts(sizes, most_tokens - group.prefix)
            fit += [Group(group.prefix, group.leaves[cut]) for cut in cuts]
    return fit, larger


def even_cuts(sizes: Sequence[int], most_tokens: int) -> list[slice]:
    """Cut rows into as few batches as hold at most `most_tokens` each, or a single row, all about equally large."""
    aim = sum(sizes) / max(1, -(-sum(sizes) // most_tokens))
    cuts, start, held = [], 0, 0
    for i, size in enumerate(sizes):
        if i > start and (held + size > most_tokens or held >= aim):
            cuts.append(slice(start, i))
            start, held = i, 0
        held += size
    return [*cuts, slice(start, len(sizes))] if sizes else []


def _common(a: Tokens, b: Tokens) -> int:
    shorter = min(len(a), len(b))
    differing = np.flatnonzero(a[:shorter] != b[:shorter])
    return int(differing[0]) if len(differing) else shorter


def batches(lengths: Sequence[int], most_tokens: int, most_rows: int, call_tokens: int) -> list[slice]:
    """Cut rows sorted by length, longest first, into batches [rows, longest] of at most `most_tokens`.

    Padding and the fixed cost of a call, `call_tokens`, are weighed exactly: the cut of least cost.
    A single row may be longer than `most_tokens`.
    """
    sizes = np.array(lengths, dtype=np.int64)
    best = np.zeros(len(sizes) + 1)
    start = np.zeros(len(sizes) + 1, dtype=np.int64)
    for end in range(1, len(sizes) + 1):
        first = max(0, end - most_rows, end - most_tokens // max(1, int(sizes[end - 1])))
        first = min(first, end - 1)
        begins = np.arange(first, end)
        padded = (end - begins) * sizes[first:end]
        cost = best[first:end] + padded + call_tokens
        cost[(padded > most_tokens) & (begins < end - 1)] = np.inf
        cheapest = int(cost.argmin())
        best[end], start[end] = cost[cheapest], first + cheapest
    cuts = []
    end = len(sizes)
    while end:
        cuts.append(slice(int(start[end]), end))
        end = int(start[end])
    return cuts[::-1]
