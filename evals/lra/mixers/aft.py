"""AFT-full: keys weighted by a learned bias for each pair of positions (arXiv:2105.14103, eq. 2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evals.lra.mixers.shape import Positions, Shape

RANK = 32  # of the bias, small beside the length, as section 3.1 has it


class Mixer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.causal = not shape.bidirectional
        self.inward = nn.Linear(shape.width, 3 * shape.width)
        self.outward = nn.Linear(shape.width, shape.width)
        self.rows, self.columns = (Positions(torch.randn(shape.length, RANK) * 0.1) for _ in "rc")

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        q, k, v = self.inward(x).chunk(3, -1)
        tokens = x.shape[1]
        bias = self.rows[:tokens] @ self.columns[:tokens].T
        if self.causal:
            bias = bias.masked_fill(torch.ones_like(bias, dtype=torch.bool).triu(1), float("-inf"))
        k = k.masked_fill(~valid[..., None], float("-inf"))
        largest = k.amax(1, keepdim=True).detach()
        weights, keys = torch.exp(bias - bias.amax(1, keepdim=True).detach()), torch.exp(k - largest)
        y = (weights @ (keys * v)) / (weights @ keys).clamp(min=1e-12)
        return self.outward(torch.sigmoid(q) * y)
