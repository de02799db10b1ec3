"""Performer: softmax attention by positive orthogonal random features (arXiv:2009.14794, eqs. 5-8)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from evals.lra.mixers.linear_transformer import linear_attention
from evals.lra.mixers.shape import Projections, Shape

STABLE = 1e-4  # added to every feature


class Mixer(nn.Module):
    """As many features as d ln d for heads of width d, drawn once."""

    features: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.causal = not shape.bidirectional
        self.project = Projections(shape)
        head_width = shape.width // shape.heads
        features = max(head_width, round(head_width * math.log(head_width)))
        self.register_buffer("features", _orthogonal(features, head_width))

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        q, k, v = self.project.split(x)
        mask = valid[:, None, :, None]
        q, k = self._logits(q), self._logits(k)
        q = q - q.amax(-1, keepdim=True).detach()
        if not self.causal:  # one number for all keys, which a causal row may not know
            k = k - k.masked_fill(~mask, float("-inf")).amax((-1, -2), keepdim=True).detach()
        q, k = torch.exp(q) + STABLE, (torch.exp(k) + STABLE) * mask
        return self.project.join(linear_attention(q, k, v, causal=self.causal))

    def _logits(self, x: Tensor) -> Tensor:
        """w x - |x|^2 / 2, whose exponential is the feature."""
        x = x * x.shape[-1] ** -0.25
        return x @ self.features.T - x.square().sum(-1, keepdim=True) / 2


def _orthogonal(rows: int, columns: int) -> Tensor:
    blocks = [nn.init.orthogonal_(torch.empty(columns, columns)).T for _ in range(-(-rows // columns))]
    return torch.cat(blocks)[:rows] * torch.randn(rows, columns).norm(dim=1, keepdim=True)
