"""RetNet: multi-scale retention (arXiv:2307.08621, eqs. 5-8), its parallel form."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evals.lra.mixers.shape import Projections, Shape


class Mixer(nn.Module):
    """Causal alone. Rotation of queries and keys as in the paper (xPos without its scale)."""

    decay: Tensor
    turn: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.project = Projections(shape)
        self.gate = nn.Linear(shape.width, shape.width)
        self.norm = nn.GroupNorm(shape.heads, shape.width)
        self.register_buffer("decay", torch.log1p(-(2.0 ** (-5 - torch.arange(shape.heads)))))
        own = shape.width // shape.heads
        self.register_buffer("turn", 10000.0 ** (-torch.arange(0, own, 2) / own))

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        q, k, v = self.project.split(x)
        place = torch.arange(x.shape[1], device=x.device)
        angle = place[:, None] * self.turn
        q, k = _rotated(q, angle), _rotated(k * k.shape[-1] ** -0.5, angle)
        distance = (place[:, None] - place).clamp(min=0)
        weights = torch.exp(self.decay[:, None, None] * distance).tril()
        weights = weights / weights.sum(-1, keepdim=True).sqrt()
        scores = (q @ k.transpose(-1, -2)) * weights
        scores = scores / scores.detach().abs().sum(-1, keepdim=True).clamp(min=1)
        y = (scores @ v).transpose(1, 2).flatten(2)
        y = self.norm(y.flatten(0, 1)).view_as(x)
        return self.project.outward(F.silu(self.gate(x)) * y)


def _rotated(x: Tensor, angle: Tensor) -> Tensor:
    even, odd = x[..., ::2], x[..., 1::2]
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)
