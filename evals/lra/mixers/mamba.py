"""Mamba: a state space whose step and matrices depend on the token (arXiv:2312.00752, algorithm 2, sec. 3.4)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evals.lra.mixers.shape import Shape, scan
from evals.train.recipe import Undecayed

STATES = 16
EXPAND = 2
SHORT = 4  # tokens of the convolution
STEP = (0.001, 0.1)


class Mixer(nn.Module):
    """Causal alone."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        inner, rank = EXPAND * shape.width, math.ceil(shape.width / 16)
        self.rank = rank
        self.inward = nn.Linear(shape.width, 2 * inner, bias=False)
        self.short = nn.Conv1d(inner, inner, SHORT, padding=SHORT - 1, groups=inner)
        self.select = nn.Linear(inner, rank + 2 * STATES, bias=False)
        self.step = nn.Linear(rank, inner)
        self.log_a = Undecayed(torch.log(torch.arange(1, STATES + 1).float()).repeat(inner, 1))
        self.skip = nn.Parameter(torch.ones(inner))
        self.outward = nn.Linear(inner, shape.width, bias=False)
        with torch.no_grad():
            initial_step = torch.empty(inner).uniform_(*(math.log(bound) for bound in STEP)).exp()
            self.step.bias.copy_(initial_step + torch.log(-torch.expm1(-initial_step)))  # softplus of it is the step

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        u, gate = self.inward(x).chunk(2, -1)
        u = F.silu(self.short(u.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        low, b, c = self.select(u).split([self.rank, STATES, STATES], -1)
        step = F.softplus(self.step(low))
        decay = torch.exp(step[..., None] * -torch.exp(self.log_a))  # [B, T, I, N]
        states = scan(decay, (step * u)[..., None] * b[:, :, None])
        y = torch.einsum("btin,btn->bti", states, c) + self.skip * u
        return self.outward(y * F.silu(gate))
