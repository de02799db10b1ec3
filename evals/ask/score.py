"""Log-likelihoods of many continuations with as little computed as possible, for recurrent models and Transformers.

A common prefix is read once and its continuations go on from copies of its state or cache; the
vocabulary is computed only where a token is scored. What is shared is decided in sharing.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from evals.ask.sharing import Group, Leaf, Request, Tokens, batches, groups, leaves
from rwkv_core import finite
from rwkv_core.errors import out_of_memory
from rwkv_core.spec import LanguageModel

T = TypeVar("T")

HEAD_ROWS = 512  # positions whose logits are held at once: 100 MB in float32 at a vocabulary of 50 k


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


class Answer(NamedTuple):
    """The summed natural log-probability of the scored tokens, and whether each was the likeliest."""

    loglikelihood: float
    greedy: bool


@dataclass(frozen=True)
class Row:
    """A sequence to feed, `offset` tokens of which are already in the state; requests score within it."""

    tokens: Tokens
    offset: int
    requests: list[int]
    source: int = 0  # which row of the state it goes on from

    def __len__(self) -> int:
        return len(self.tokens)


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
        """One answer a request, and how many tokens were read, and would have been without sharing."""
        self.requests = requests
        self.sums = np.zeros((2, len(requests)))  # of the prefix and of the rest, so that a repeated batch is no harm
        self.likeliest = np.ones((2, len(requests)), dtype=bool)
        distinct = leaves(requests)
        copy = 0.0 if self.model.spec.recurrent else CACHE_COPY
        plan = groups(distinct, self.limits.row_tokens, copy) if self.share else [Group(0, [leaf]) for leaf in distinct]
        counts = {
            "tokens_read": sum(group.computed for group in plan),
            "tokens_unshared": sum(len(request.fed) for request in requests),
        }
        with tqdm(
            total=counts["tokens_read"], desc=self.label, unit="token", unit_scale=True, leave=False, dynamic_ncols=True
        ) as self.bar:
            self._alone([group.leaves[0] for group in plan if not group.prefix])
            self._shared([group for group in plan if group.prefix])
        greedy = self.likeliest[0] & self.likeliest[1]
        return [Answer(float(s), bool(g)) for s, g in zip(self.sums.sum(0), greedy, strict=True)], counts

    def _alone(self, alone: Sequence[Leaf]) -> None:
        rows = [Row(leaf.fed, 0, leaf.requests) for leaf in alone]
        for batch in self._batches(rows):
            halving(lambda part: self._read(part, None), batch)

    def _shared(self, shared: Sequence[Group]) -> None:
        """Prefixes of similar length together, as many as their states and the limit allow; then what follows them."""
        prefixes = [
            Row(g.leaves[0].fed[: g.prefix], 0, [r for leaf in g.leaves for r in leaf.requests]) for g in shared
        ]
        following = dict(zip(map(id, prefixes), shared, strict=True))
        for batch in self._batches(prefixes, holds_states=True):
            halving(lambda part: self._wave(part, [following[id(row)] for row in part]), batch)

    def _wave(self, prefixes: Sequence[Row], following: Sequence[Group]) -> None:
        state = self._read(prefixes, None, keep=True)
        rows = [
            Row(leaf.fed[group.prefix :], group.prefix, leaf.requests, i)
            for i, group in enumerate(following)
            for leaf in group.leaves
            if len(leaf.fed) > group.prefix
        ]
        for batch in self._batches(rows, before=max(map(len, prefixes)), holds_states=True):
            halving(lambda part: self._read(part, state), batch)

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
        self._score_rows(hidden, rows)
        self.bar.update(sum(map(len, rows)))
        return after if keep else None

    def _score_rows(self, hidden: Tensor, rows: Sequence[Row]) -> None:
        """hidden [B, T, C]: the scored positions of each row against their tokens, each position's head once."""
        places, targets, owners, parts = [], [], [], []
        for i, row in enumerate(rows):
            for number in row.requests:
                request = self.requests[number]
                end = len(request.fed)
                first = max(end - request.scored, row.offset)
                last = min(end, row.offset + len(row))
                for position in range(first, last):
                    places.append(i * hidden.shape[1] + position - row.offset)
                    targets.append(int(request.tokens[position + 1]))
                    owners.append(number)
                    parts.append(int(row.offset > 0))
        if not places:
            return
        positions, which = np.unique(places, return_inverse=True)
        log_probs, greedy = self._at(hidden.flatten(0, 1), positions, which, np.array(targets))
        if np.isnan(log_probs).any():
            finite.refuse(self.model, self.requests[owners[int(np.isnan(log_probs).argmax())]].fed)
        part, owner = np.array(parts), np.array(owners)
        self.sums[part, owner] = 0.0
        np.add.at(self.sums, (part, owner), log_probs)
        self.likeliest[part, owner] = True
        np.logical_and.at(self.likeliest, (part, owner), greedy)

    def _at(
        self, flat: Tensor, positions: np.ndarray, which: np.ndarray, targets: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """flat [N, C] at `positions`: for each target, its log-probability at positions[which], and if it is likeliest.

        NaN where a logit is not finite. The log-softmax is float32 whatever the model's type is: sums in a shorter one
        tie.
        """
        log_probs, greedy = np.empty(len(targets)), np.empty(len(targets), dtype=bool)
        order = np.argsort(which, kind="stable")
        for start in range(0, len(positions), HEAD_ROWS):
            index = torch.from_numpy(positions[start : start + HEAD_ROWS]).to(self.device)
            logits = self.model.logits(flat[index]).float()
            low, high = np.searchsorted(which[order], [start, start + len(index)])
            these = order[low:high]
            row = torch.from_numpy(which[these] - start).to(self.device)
            token = torch.from_numpy(targets[these]).to(self.device)
            log_prob = logits[row, token] - logits.logsumexp(-1)[row]
            log_probs[these] = log_prob.where(finite.rows(logits)[row], torch.nan).double().cpu().numpy()
            greedy[these] = (logits.argmax(-1)[row] == token).cpu().numpy()
        return log_probs, greedy


def halving(run: Callable[[list[T]], object], rows: list[T]) -> None:
    """Run a batch, and where memory runs out its halves, down to single rows."""
    try:
        run(rows)
        return
    except Exception as error:
        if len(rows) == 1 or not out_of_memory(error):
            raise
    torch.cuda.empty_cache()  # does nothing where CUDA is not in use
    half = len(rows) // 2
    halving(run, rows[:half])
    halving(run, rows[half:])
