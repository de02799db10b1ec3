"""Hyena of order 2: long convolutions, their filters drawn by a small network, and gates (arXiv:2302.10866, sec. 3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from evals.lra.mixers.shape import Shape, convolved
from evals.train.recipe import Undecayed

ORDER = 2
HIDDEN = 32
FREQUENCIES = 8
FAST, SLOW = 0.3, 1.5  # shares of the length in which a channel's filter falls to a hundredth
SHORT = 3  # tokens of the short convolution


class Mixer(nn.Module):
    """Causal alone."""

    decay: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.length = shape.length
        self.inward = nn.Linear(width, (ORDER + 1) * width)
        self.short = nn.Conv1d(
            (ORDER + 1) * width, (ORDER + 1) * width, SHORT, padding=SHORT - 1, groups=(ORDER + 1) * width
        )
        self.outward = nn.Linear(width, width)
        self.first, self.second = nn.Linear(1 + 2 * FREQUENCIES, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.last = nn.Linear(HIDDEN, ORDER * width, bias=False)
        self.skip = Undecayed(torch.randn(ORDER, width))
        self.register_buffer("decay", math.log(100) * torch.linspace(1 / SLOW, 1 / FAST, width))

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        tokens = x.shape[1]
        mixed = self.short(self.inward(x).transpose(1, 2))[..., :tokens].transpose(1, 2)
        *gates, v = mixed.chunk(ORDER + 1, -1)
        for gate, kernel, skip in zip(gates, self._filters(tokens), self.skip, strict=True):
            v = gate * (convolved(v, kernel) + skip * v)
        return self.outward(v)

    def _filters(self, tokens: int) -> tuple[Tensor, ...]:
        place = torch.arange(tokens, device=self.decay.device)[:, None] / self.length
        turns = 2 * math.pi * place * torch.arange(1, FREQUENCIES + 1, device=place.device)
        features = torch.cat([place, turns.sin(), turns.cos()], -1)
        filters = self.last(torch.sin(self.second(torch.sin(self.first(features)))))
        window = torch.exp(-place * self.decay) + 0.01
        return tuple(one * window / math.sqrt(self.length) for one in filters.chunk(ORDER, -1))
