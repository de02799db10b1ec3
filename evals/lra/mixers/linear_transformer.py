"""Linear attention with the feature map elu + 1 (arXiv:2006.16236, eqs. 5-7)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evals.lra.mixers.shape import Projections, Shape

CHUNK = 64  # tokens: within one by a matrix, between them by a sum


class Mixer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.causal = not shape.bidirectional
        self.project = Projections(shape)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        q, k, v = self.project.split(x)
        q, k = F.elu(q) + 1, (F.elu(k) + 1) * valid[:, None, :, None]
        return self.project.join(linear_attention(q, k, v, causal=self.causal))


def linear_attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """q (k^T v) over q (k^T 1) for q, k [B, H, T, F] >= 0, v [B, H, T, D]."""
    v = torch.cat([v, torch.ones_like(v[..., :1])], -1)  # the denominator with the numerator
    y = _causal(q, k, v) if causal else q @ (k.transpose(-1, -2) @ v)
    return y[..., :-1] / y[..., -1:].clamp(min=1e-6)


def _causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    tokens = q.shape[2]
    missing = -tokens % CHUNK
    q, k, v = (F.pad(one, (0, 0, 0, missing)).unflatten(2, (-1, CHUNK)) for one in (q, k, v))
    states = (k.transpose(-1, -2) @ v).cumsum(2)
    before = torch.cat([torch.zeros_like(states[:, :, :1]), states[:, :, :-1]], 2)
    within = (q @ k.transpose(-1, -2)).tril()
    return (q @ before + within @ v).flatten(2, 3)[:, :, :tokens]
