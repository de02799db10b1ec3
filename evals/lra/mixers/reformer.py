"""Reformer: attention within buckets of a hash, queries and keys the same (arXiv:2001.04451, sec. 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evals.lra.mixers.shape import Shape

CHUNK = 64  # tokens: about a bucket
ROUNDS = 2  # hashes
ITSELF = -1e5  # a token attends to itself only where there is nothing else


class Mixer(nn.Module):
    turns: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.qk, self.v, self.outward = (nn.Linear(shape.width, shape.width, bias=False) for _ in range(3))
        buckets = max(2, 2 * -(-shape.length // CHUNK // 2))
        generator = torch.Generator().manual_seed(shape.layer)
        turns = torch.randn(ROUNDS, shape.width // shape.heads, buckets // 2, generator=generator)
        self.register_buffer("turns", turns)  # the same for every input, so that the same input gives the same output

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        tokens = x.shape[1]
        missing = -tokens % CHUNK
        qk, v = (
            F.pad(w(x), (0, 0, 0, missing)).unflatten(2, (self.heads, -1)).transpose(1, 2) for w in (self.qk, self.v)
        )
        padded_valid = F.pad(valid, (0, missing))[:, None].expand(-1, self.heads, -1)
        rounds = [self._round(qk, v, padded_valid, turn) for turn in self.turns]
        weights = torch.softmax(torch.stack([weight for _, weight in rounds]), 0)[..., None]
        y = (weights * torch.stack([one for one, _ in rounds])).sum(0)
        return self.outward(y.transpose(1, 2).flatten(2)[:, :tokens])

    def _round(self, qk: Tensor, v: Tensor, valid: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
        """One hash: what each token gets, and the logarithm of what its attention summed to."""
        turned = qk @ turn
        bucket = torch.cat([turned, -turned], -1).argmax(-1)
        bucket = torch.where(valid, bucket, turn.shape[-1] * 2)  # padding last
        order = bucket.argsort(dim=-1, stable=True)
        back = order.argsort(-1)
        rows = order[..., None].expand_as(qk)
        q, v, place, chunk_valid, buckets = (
            one.unflatten(2, (-1, CHUNK))
            for one in (qk.gather(2, rows), v.gather(2, rows), order, valid.gather(2, order), bucket.gather(2, order))
        )
        k = F.normalize(q, dim=-1)
        k, v, places, chunk_valid, key_buckets = (_with_previous(one) for one in (k, v, place, chunk_valid, buckets))
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        scores = scores.masked_fill(place[..., None] == places[..., None, :], ITSELF)
        foreign = buckets[..., None] != key_buckets[..., None, :]
        scores = scores.masked_fill(~chunk_valid[..., None, :] | foreign, 4 * ITSELF)
        total = scores.logsumexp(-1, keepdim=True)
        y = (torch.exp(scores - total) @ v).flatten(2, 3)
        return y.gather(2, back[..., None].expand_as(y)), total.flatten(2).gather(2, back)


def _with_previous(x: Tensor) -> Tensor:
    """Each chunk after the one before it, the first after zeros: [B, H, N, W, ...] -> [B, H, N, 2 W, ...]."""
    before = torch.cat([torch.zeros_like(x[:, :, :1]), x[:, :, :-1]], 2)
    return torch.cat([before, x], 3)
