"""Softmax attention (arXiv:1706.03762)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from evals.lra.mixers.shape import Projections, Shape


class Mixer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.causal = not shape.bidirectional
        self.project = Projections(shape)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        q, k, v = self.project.split(x)
        mask = valid[:, None, None] if not self.causal else None  # a causal row never reaches its padding
        return self.project.join(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self.causal))
