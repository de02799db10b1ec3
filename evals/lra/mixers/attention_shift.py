"""Attention of tokens mixed with their neighbours, as RWKV-4's token shift mixes them (arXiv:2305.13048, eqs. 11-13): a
control, so that what a shift gives is not taken for WKV's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evals.lra.mixers import attention
from evals.lra.mixers.shape import Shape
from rwkv_core.rwkv.mixing import shift


class Mixer(nn.Module):
    """A learned share a channel of the token before and, in both directions, of the one after."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        ways = 2 if shape.bidirectional else 1
        self.shares = nn.Parameter(torch.full((ways, shape.width), 0.5 / ways))
        self.attention = attention.Mixer(shape)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        x = x * valid[..., None]
        mixed = x + self.shares[0] * (shift(x, torch.zeros_like(x[:, 0])) - x)
        if len(self.shares) == 2:
            mixed = mixed + self.shares[1] * (F.pad(x[:, 1:], (0, 0, 0, 1)) - x)
        y: Tensor = self.attention(mixed, valid)
        return y
