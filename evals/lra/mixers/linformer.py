"""Linformer: attention over keys and values projected along the sequence (arXiv:2006.04768, eq. 7)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evals.lra.mixers.shape import Positions, Projections, Shape

SHORT = 32  # tokens: the projected length


class Mixer(nn.Module):
    """One projection for keys and values and all heads (the paper's key-value sharing)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.project = Projections(shape)
        self.shorten = Positions(torch.randn(shape.length, SHORT) * shape.length**-0.5)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        q, k, v = self.project.split(x)
        mask = valid[:, None, :, None]
        k, v = ((one * mask).transpose(-1, -2) @ self.shorten[: x.shape[1]] for one in (k, v))
        return self.project.join(F.scaled_dot_product_attention(q, k.transpose(-1, -2), v.transpose(-1, -2)))
