"""The vocabulary's side of scoring: hidden vectors wait until there are enough of them for one large product, whose
logits are read as they come.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from evals.ask.halving import halving
from evals.ask.sharing import Request, Row
from rwkv_core import finite, softmax
from rwkv_core.softmax import Summary
from rwkv_core.spec import LanguageModel

ROWS = 512  # positions whose logits are computed together
BLOCK = 1 << 20  # logits held at once on a CPU: 4 MB in float32, which stay in its caches until they are read


class Answer(NamedTuple):
    """The summed natural log-probability of the scored tokens, and whether each was the likeliest."""

    loglikelihood: float
    greedy: bool


class Waiting(NamedTuple):
    """Hidden vectors [N, C] of what was read at once; and of each scored token: which of them, its number, its request,
    and whether it lies in a prefix (0) or after it (1).
    """

    vectors: Tensor
    which: np.ndarray
    targets: np.ndarray
    owners: np.ndarray
    parts: np.ndarray


class Head:
    """Answers requests from the hidden vectors of what a model has read of them."""

    def __init__(self, model: LanguageModel, requests: Sequence[Request]) -> None:
        self.model = model
        self.requests = requests
        self.waiting: list[Waiting] = []
        self.scored = 0  # vectors
        self.sums = np.zeros((2, len(requests)))  # of the prefix and of the rest, so that a repeated batch is no harm
        self.likeliest = np.ones((2, len(requests)), dtype=bool)

    def add(self, hidden: Tensor, rows: Sequence[Row], begins: Sequence[int]) -> None:
        """hidden [N, C], in which each row has its place: the vectors at which something is scored wait."""
        places, targets, owners, parts = [], [], [], []
        for row, begin in zip(rows, begins, strict=True):
            for number in row.requests:
                request = self.requests[number]
                end = len(request.fed)
                first = max(end - request.scored, row.offset)
                last = min(end, row.offset + len(row))
                for position in range(first, last):
                    places.append(begin + position - row.offset)
                    targets.append(int(request.tokens[position + 1]))
                    owners.append(number)
                    parts.append(int(row.offset > 0))
        if places:
            positions, which = np.unique(places, return_inverse=True)
            vectors = hidden[torch.from_numpy(positions).to(hidden.device)]
            self.waiting.append(Waiting(vectors, which, np.array(targets), np.array(owners), np.array(parts)))

    def score(self, fewest: int = 1) -> None:
        """Score what waits, if it is so many vectors. Raises BadInput where a logit is not finite."""
        if sum(len(one.vectors) for one in self.waiting) >= fewest:
            waiting, self.waiting = self.waiting, []
            self._score(waiting)

    def answers(self) -> list[Answer]:
        """One a request, when all are scored."""
        greedy = self.likeliest[0] & self.likeliest[1]
        return [Answer(float(s), bool(g)) for s, g in zip(self.sums.sum(0), greedy, strict=True)]

    def _score(self, waiting: Sequence[Waiting]) -> None:
        begins = np.cumsum([0, *(len(one.vectors) for one in waiting[:-1])])
        which = np.concatenate([one.which + begin for one, begin in zip(waiting, begins, strict=True)])
        targets = np.concatenate([one.targets for one in waiting])
        log_probs, greedy = self._at(torch.cat([one.vectors for one in waiting]), which, targets)
        if np.isnan(log_probs).any():
            owners = np.concatenate([one.owners for one in waiting])
            finite.refuse(self.model, self.requests[owners[int(np.isnan(log_probs).argmax())]].fed)
        for one in waiting:
            here, log_probs = log_probs[: len(one.targets)], log_probs[len(one.targets) :]
            likeliest, greedy = greedy[: len(one.targets)], greedy[len(one.targets) :]
            self.sums[one.parts, one.owners] = 0.0
            np.add.at(self.sums, (one.parts, one.owners), here)
            self.likeliest[one.parts, one.owners] = True
            np.logical_and.at(self.likeliest, (one.parts, one.owners), likeliest)
            self.scored += len(one.vectors)

    def _at(self, vectors: Tensor, which: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each target, its log-probability at vectors[which], NaN where a logit is not finite, and if it is
        likeliest.
        """
        log_probs, greedy = np.empty(len(targets)), np.empty(len(targets), dtype=bool)
        order = np.argsort(which, kind="stable")

        def look(numbers: list[int]) -> None:
            start, end = numbers[0], numbers[-1] + 1
            low, high = np.searchsorted(which[order], [start, end])
            these = order[low:high]
            row = torch.from_numpy(which[these] - start).to(vectors.device)
            token = torch.from_numpy(targets[these]).to(vectors.device)
            summary, chosen = self._summary(vectors[start:end], row, token)
            log_probs[these] = (chosen.double() - summary.log_sum[row]).cpu().numpy()
            greedy[these] = (summary.place[row] == token).cpu().numpy()

        for numbers in np.array_split(np.arange(len(vectors)), -(-len(vectors) // ROWS)):
            halving(look, numbers.tolist())
        return log_probs, greedy

    def _summary(self, vectors: Tensor, row: Tensor, token: Tensor) -> tuple[Summary, Tensor]:
        """Of the logits of vectors [N, C], and the logit of each token at its row."""
        summary: Summary | None = None
        chosen = torch.zeros(len(row), device=vectors.device)
        for first, logits in self._logits(vectors):
            place = token - first
            inside = place.clamp(0, logits.shape[-1] - 1)
            chosen = logits[row, inside].where(inside == place, chosen)
            here = softmax.summary(logits)
            summary = here if summary is None else softmax.joined(summary, here, first)
        assert summary is not None
        return summary, chosen

    def _logits(self, vectors: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The number of the first word and logits from it on, of all words on a GPU, else a block at a time; float32
        whatever the model's type is: sums in a shorter one tie.
        """
        if vectors.device.type != "cpu":
            yield 0, self.model.logits(vectors).float()
            return
        words = max(1, BLOCK // len(vectors))
        for first in range(0, self.model.spec.vocab_size, words):
            yield first, self.model.logits(vectors, slice(first, first + words)).float()
