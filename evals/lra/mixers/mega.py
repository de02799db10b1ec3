"""MEGA: attention of one head, gated, over a moving average of several exponentials (arXiv:2209.10655, eqs. 3-15)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evals.lra.mixers.shape import Shape, convolved_each_way, rotated
from evals.train.recipe import Undecayed

AVERAGES = 16  # for each channel
SHARED = 2  # times narrower: the representation that queries and keys are made of


class Mixer(nn.Module):
    """Its relative bias is the rotary one, b_ij = (R_i alpha) (R_j beta): as a part of queries and keys it leaves torch
    its fused attention.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.causal = not shape.bidirectional
        width, shared_width = shape.width, shape.width // SHARED
        self.ways = nn.ModuleList(_Average(width) for _ in range(2 if shape.bidirectional else 1))
        self.value = nn.Linear(width, width)
        self.shared = nn.Linear(width, shared_width)
        self.scale = Undecayed(torch.randn(2, shared_width) * 0.02 + 1)
        self.bias = Undecayed(torch.zeros(2, shared_width))
        self.relative = Undecayed(torch.randn(2, width - shared_width) * 0.02)
        self.gates = nn.Linear(width, 3 * width)  # reset, update, candidate
        self.recall = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        x = x * valid[..., None]
        smooth = convolved_each_way(self.ways, x, valid)
        shared = F.silu(self.shared(smooth))
        q, k = (shared * scale + bias for scale, bias in zip(self.scale, self.bias, strict=True))
        relative = rotated(self.relative[:, None, None].expand(-1, len(x), x.shape[1], -1))
        q, k = torch.cat([q * q.shape[-1] ** -0.5, relative[0]], -1), torch.cat([k, relative[1]], -1)
        mask = None if self.causal else valid[:, None, None]
        q, k, v = (one[:, None] for one in (q, k, F.silu(self.value(x))))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self.causal, scale=1.0)[:, 0]
        reset, update, candidate = self.gates(smooth).chunk(3, -1)
        new = F.silu(candidate + self.recall(F.silu(reset) * attended))
        # the encoder adds its own x, before normalisation: as near as a pre-norm block comes to eq. 15
        return torch.sigmoid(update) * (new - x)


class _Average(nn.Module):
    """Damped moving averages, as a kernel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha, self.damp = (Undecayed(torch.randn(width, AVERAGES) * 0.2) for _ in "ad")
        signs = 1 - 2 * (torch.arange(AVERAGES) % 2)  # as the authors' code begins
        self.widen = nn.Parameter(signs + torch.randn(width, AVERAGES) * 0.02)
        self.join = nn.Parameter(torch.randn(width, AVERAGES) * AVERAGES**-0.5)

    def forward(self, tokens: int) -> Tensor:
        """[T, C]: sum over averages of join (1 - alpha damp)^t alpha widen."""
        alpha, damp = torch.sigmoid(self.alpha), torch.sigmoid(self.damp)
        powers = torch.exp(torch.log1p(-alpha * damp)[..., None] * torch.arange(tokens, device=alpha.device))
        return torch.einsum("cn,cnt->tc", self.join * alpha * self.widen, powers)
