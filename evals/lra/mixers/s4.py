"""S4D: a diagonal state space for each channel, run as one convolution (arXiv:2206.11893, S4D-Lin)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evals.lra.mixers.shape import Shape, convolved_each_way
from evals.train.recipe import Undecayed

STATES = 64  # real; half as many pairs of complex ones
STEP = (0.001, 0.1)
PATHX, PATHX_STEP = 16384, 0.0001  # tokens, and the least step from there on: S4's configuration for Path-X
DYNAMICS_RATE = 1e-3  # as in S4's own training


class Mixer(nn.Module):
    """As in S4's layers: the convolutions of both directions, a skip, GELU, and a gated linear unit."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        least = PATHX_STEP if shape.length >= PATHX else STEP[0]
        self.ways = nn.ModuleList(_Kernel(shape.width, least) for _ in range(2 if shape.bidirectional else 1))
        self.skip = nn.Parameter(torch.randn(shape.width))
        self.outward = nn.Linear(shape.width, 2 * shape.width)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        x = x * valid[..., None]
        y = convolved_each_way(self.ways, x, valid)
        return F.glu(self.outward(F.gelu(y + self.skip * x)), -1)


class _Kernel(nn.Module):
    def __init__(self, width: int, least: float = STEP[0]) -> None:
        super().__init__()
        low, high = math.log(least), math.log(STEP[1])
        self.log_step = Undecayed(torch.empty(width).uniform_(low, high))
        self.log_decay = Undecayed(torch.full((width, STATES // 2), math.log(0.5)))
        self.turn = Undecayed(math.pi * torch.arange(STATES // 2).float().repeat(width, 1))
        for dynamics in (self.log_step, self.log_decay, self.turn):
            dynamics.rate_at_most = DYNAMICS_RATE
        self.c = nn.Parameter(torch.randn(width, STATES // 2, 2) * 0.5**0.5)

    def forward(self, tokens: int) -> Tensor:
        """[T, C]: 2 Re sum over states of C (exp(dt A) - 1) / A exp(dt A t), zero-order hold."""
        a = torch.complex(-torch.exp(self.log_decay), self.turn)
        step = a * torch.exp(self.log_step)[:, None]
        c = torch.view_as_complex(self.c) * (torch.exp(step) - 1) / a
        # exp(dt A t) of t = coarse + fine is a product: one matrix product, not an exponential for each state and token
        each = math.isqrt(tokens - 1) + 1
        fine = torch.exp(step[..., None] * torch.arange(each, device=a.device))
        coarse = torch.exp(step[..., None] * torch.arange(0, tokens, each, device=a.device))
        kernel = torch.einsum("cnf,cnk->cfk", c[..., None] * coarse, fine).flatten(1)
        return 2 * kernel[:, :tokens].real.T
