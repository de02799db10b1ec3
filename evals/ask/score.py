"""Log-likelihoods of many continuations with as little computed as possible, for recurrent models and Transformers.

A common prefix is read once, and its continuations in the same pass, without padding; where a model has no such pass,
they go on from copies of its state or cache. The vocabulary is computed only where a token is scored (head.py). What is
shared is decided in sharing.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from evals.ask.halving import halving
from evals.ask.head import ROWS, Answer, Head
from evals.ask.sharing import Group, Request, Row, batches, even_cuts, fitting, groups, leaves
from rwkv_core.spec import LanguageModel, Tree


class Limits(NamedTuple):
    """What fits and what a call costs on a device. tokens: of a batch, padding included.

    call_tokens: the fixed cost of a call, row_tokens: of one more row's state, in tokens' time;
    state_bytes: caches or states that are held at once.
    """

    tokens: int
    call_tokens: int
    row_tokens: float
    state_bytes: int


LIMITS = {"cpu": Limits(2048, 56, 0.5, 256 << 20), "cuda": Limits(32768, 2048, 0.5, 4 << 30)}
CACHE_COPY = 0.08  # what copying a token's cache costs beside computing the token; a fixed-size state costs nothing


class Scorer:
    """Scores requests with one model. `limits` are the device's unless given; `share` False computes all apart."""

    def __init__(
        self, model: LanguageModel, device: str, *, share: bool = True, limits: Limits | None = None, label: str = ""
    ) -> None:
        self.model = model
        self.device = device
        self.limits = limits or LIMITS[device]
        self.share = share and model.ragged
        self.label = label

    @torch.inference_mode()
    def score(self, requests: Sequence[Request]) -> tuple[list[Answer], dict[str, int]]:
        """One answer a request; and how many tokens were read, would have been without sharing, and how many positions
        were scored.
        """
        self.head = Head(self.model, requests)
        distinct = leaves(requests)
        copy = 0.0 if self.model.spec.recurrent or self.model.read else CACHE_COPY
        plan = groups(distinct, self.limits.row_tokens, copy) if self.share else [Group(0, [leaf]) for leaf in distinct]
        trees, plan = fitting(plan, self.limits.tokens) if self.model.read else ([], plan)
        counts = {
            "tokens_read": sum(group.computed for group in [*trees, *plan]),
            "tokens_unshared": sum(len(request.fed) for request in requests),
        }
        with tqdm(
            total=counts["tokens_read"], desc=self.label, unit="token", unit_scale=True, leave=False, dynamic_ncols=True
        ) as self.bar:
            self._trees(trees)
            self._alone([group.stem for group in plan if not group.prefix])
            self._shared([group for group in plan if group.prefix])
            self.head.score()
        return self.head.answers(), {**counts, "positions_scored": self.head.scored}

    def _trees(self, trees: Sequence[Group]) -> None:
        """Prefixes of similar length together, since the recurrence pads them, with what follows them."""
        trees = sorted(trees, key=lambda group: len(group.stem), reverse=True)
        for cut in even_cuts([group.computed for group in trees], self.limits.tokens):
            halving(self._read_trees, trees[cut])
            self.head.score(ROWS)

    def _read_trees(self, groups: Sequence[Group]) -> None:
        rows, trees = [], []
        for group in groups:
            stem, branches = group.stem, group.branches()
            rows += [stem, *branches]
            trees.append(Tree(len(stem), tuple(map(len, branches))))
        tokens = np.concatenate([row.tokens for row in rows]).astype(np.int64)
        assert self.model.read is not None
        hidden = self.model.read(torch.from_numpy(tokens).to(self.device), trees)
        self.head.add(hidden, rows, list(accumulate(map(len, rows[:-1]), initial=0)))
        self.bar.update(len(tokens))

    def _alone(self, rows: Sequence[Row]) -> None:
        for batch in self._batches(rows):
            halving(lambda part: self._read(part, None), batch)
            self.head.score(ROWS)

    def _shared(self, shared: Sequence[Group]) -> None:
        """Prefixes of similar length together, as many as their states and the limit allow; then what follows them."""
        prefixes = [group.stem for group in shared]
        following = dict(zip(map(id, prefixes), shared, strict=True))
        for batch in self._batches(prefixes, holds_states=True):
            halving(lambda part: self._wave(part, [following[id(row)] for row in part]), batch)

    def _wave(self, prefixes: Sequence[Row], following: Sequence[Group]) -> None:
        state = self._read(prefixes, None, keep=True)
        rows = [row for i, group in enumerate(following) for row in group.branches(i)]
        for batch in self._batches(rows, before=max(map(len, prefixes)), holds_states=True):
            halving(lambda part: self._read(part, state), batch)
            self.head.score(ROWS)

    def _batches(self, rows: Sequence[Row], before: int = 0, holds_states: bool = False) -> list[list[Row]]:
        """Rows in batches, longest first; `holds_states`: states of `before` tokens and their own must fit too."""
        rows = sorted(rows, key=len, reverse=True)
        most = len(rows)
        if holds_states and rows:
            itemsize = self.model.itemsize
            one = self.model.spec.state_bytes(before + len(rows[0]), itemsize)
            most = max(1, self.limits.state_bytes // one)
        cuts = batches([len(row) for row in rows], self.limits.tokens, most, self.limits.call_tokens)
        return [list(rows[cut]) for cut in cuts]

    def _read(self, rows: Sequence[Row], state: Any, keep: bool = False) -> Any:
        """Feed the rows, score what they hold, and return the state at each row's end if it is kept."""
        tokens = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
        for i, row in enumerate(rows):
            tokens[i, : len(row)] = row.tokens
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        if state is not None:
            state = self.model.take(state, torch.tensor([row.source for row in rows], device=self.device))
        ragged = lengths if keep or state is not None else None
        hidden, after = self.model.hidden(torch.from_numpy(tokens).to(self.device), state, ragged, keep=keep)
        width = hidden.shape[1]
        self.head.add(hidden.flatten(0, 1), rows, range(0, len(rows) * width, width))
        self.bar.update(sum(map(len, rows)))
        return after if keep else None
