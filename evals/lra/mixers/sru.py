"""SRU: a recurrence of products by element, its gates looking at the last state (arXiv:1709.02755, eqs. 1-4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evals.lra.mixers.shape import Shape, each_way
from evals.train.recipe import Undecayed


class Mixer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        ways = 2 if shape.bidirectional else 1
        self.ways = nn.ModuleList(_Cell(shape.width, shape.width // ways) for _ in range(ways))

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        return torch.cat(each_way(self.ways, lambda cell, x: cell(x), x, valid), -1)


class _Cell(nn.Module):
    def __init__(self, width: int, units: int) -> None:
        super().__init__()
        self.inward = nn.Linear(width, 4 * units)  # value, forget, reset, and the highway's input
        self.look = Undecayed(torch.zeros(2, units))

    def forward(self, x: Tensor) -> Tensor:
        value, forget, reset, highway = self.inward(x).chunk(4, -1)
        state, pairs = torch.zeros_like(value[:, 0]), []
        for w, f, r in zip(value.unbind(1), forget.unbind(1), reset.unbind(1), strict=True):
            f, r = torch.sigmoid(f + self.look[0] * state), torch.sigmoid(r + self.look[1] * state)
            state = torch.lerp(w, state, f)
            pairs.append(torch.stack([state, r]))
        states, resets = torch.stack(pairs, 2)
        return resets * states + (1 - resets) * highway
