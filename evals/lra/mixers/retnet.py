"""RetNet: multi-scale retention (arXiv:2307.08621, eqs. 5-8), its form in chunks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evals.lra.mixers.shape import Projections, Shape, rotated

CHUNK = 128  # tokens: within one by a matrix, from one to the next by a state


class Mixer(nn.Module):
    """Causal alone. Rotation of queries and keys as in the paper (xPos without its scale)."""

    decay: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.project = Projections(shape)
        self.gate = nn.Linear(shape.width, shape.width)
        self.norm = nn.GroupNorm(shape.heads, shape.width)
        self.register_buffer("decay", torch.log1p(-(2.0 ** (-5 - torch.arange(shape.heads)))))

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        q, k, v = self.project.split(x)
        q, k = rotated(q), rotated(k * k.shape[-1] ** -0.5)
        y = retention(q, k, v, self.decay).transpose(1, 2).flatten(2)
        y = self.norm(y.flatten(0, 1)).view_as(x)
        return self.project.outward(F.silu(self.gate(x)) * y)


def retention(q: Tensor, k: Tensor, v: Tensor, decay: Tensor) -> Tensor:
    """The sum over s <= t of g^(t - s) (q_t k_s) v_s, by the root of the sum of g^(t - s).

    q, k, v [B, H, T, D], decay = log g [H]. The paper divides by the scores' sum too, one number for each token and
    head, which the norm that follows takes out again.
    """
    tokens, decay = q.shape[2], decay[:, None, None, None]
    missing = -tokens % CHUNK
    q, k, v = (F.pad(one, (0, 0, 0, missing)).unflatten(2, (-1, CHUNK)) for one in (q, k, v))
    place = torch.arange(CHUNK, device=q.device)[:, None]
    updates = (k * torch.exp(decay * (CHUNK - 1 - place))).transpose(-1, -2) @ v
    state, before = torch.zeros_like(updates[:, :, 0]), []
    for one in updates.unbind(2):
        before.append(state)
        state = torch.exp(decay[:, 0] * CHUNK) * state + one
    within = torch.exp(decay * (place - place.T).clamp(min=0)).tril()
    y = (q @ k.transpose(-1, -2) * within) @ v + q * torch.exp(decay * (place + 1)) @ torch.stack(before, 2)
    weight = torch.expm1(decay * torch.arange(1, tokens + 1, device=q.device)[:, None]) / torch.expm1(decay)
    return y.flatten(2, 3)[:, :, :tokens] / weight[:, 0].sqrt()
