"""Longformer's sliding window: each token attends to those at most so far away (arXiv:2004.05150, sec. 3.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evals.lra.mixers.shape import Projections, Shape, in_blocks

WINDOW = 64  # tokens to each side


class Mixer(nn.Module):
    """Without global tokens: the encoder's mean over all tokens takes their place."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.causal = not shape.bidirectional
        self.project = Projections(shape)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        tokens = x.shape[1]
        missing = -tokens % WINDOW
        q, k, v = (F.pad(one, (0, 0, 0, missing)).unflatten(2, (-1, WINDOW)) for one in self.project.split(x))
        key_valid = F.pad(valid, (0, missing)).unflatten(1, (-1, WINDOW))
        k, v, key_valid = _neighbours(k, 2), _neighbours(v, 2), _neighbours(key_valid, 1)
        to = torch.arange(WINDOW, 2 * WINDOW, device=x.device)[:, None]
        distance = to - torch.arange(3 * WINDOW, device=x.device)
        window = (distance <= WINDOW) & (distance >= (0 if self.causal else -WINDOW))
        mask = window & key_valid[:, :, None]
        mask = mask | ~mask.any(-1, keepdim=True)  # a padded token sees something, so that nothing is NaN
        return self.project.join(in_blocks(q, k, v, mask)[:, :, :tokens])


def _neighbours(x: Tensor, axis: int) -> Tensor:
    """Each block with the one before and the one after it: [.., N, W, ..] -> [.., N, 3 W, ..]."""
    none = torch.zeros_like(x.narrow(axis, 0, 1))
    before = torch.cat([none, x.narrow(axis, 0, x.shape[axis] - 1)], axis)
    after = torch.cat([x.narrow(axis, 1, x.shape[axis] - 1), none], axis)
    return torch.cat([before, x, after], axis + 1)
