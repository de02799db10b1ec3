"""Luna: attention packed into a few vectors and unpacked again (arXiv:2106.01540, eqs. 4-6)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evals.lra.mixers.shape import Shape

PACKED = 16


class Mixer(nn.Module):
    """Its packed vectors are each layer's own; the paper hands them from layer to layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.packed = nn.Parameter(torch.randn(PACKED, shape.width))
        self.pack_q, self.pack_k, self.pack_v, self.unpack_q, self.unpack_k, self.unpack_v, self.outward = (
            nn.Linear(shape.width, shape.width) for _ in range(7)
        )

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        queries = self.packed.expand(len(x), -1, -1)
        packed = self._attend(self.pack_q(queries), self.pack_k(x), self.pack_v(x), valid[:, None, None])
        return self.outward(self._attend(self.unpack_q(x), self.unpack_k(packed), self.unpack_v(packed), None))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = (one.unflatten(-1, (self.heads, -1)).transpose(1, 2) for one in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
