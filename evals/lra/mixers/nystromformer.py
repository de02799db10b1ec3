"""Nystromformer: attention through landmarks, the means of segments (arXiv:2102.03902, eqs. 13-14)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evals.lra.mixers.shape import Projections, Shape

LANDMARKS = 32
INVERSE_STEPS = 6
KERNEL = 33  # of the depthwise convolution over values


class Mixer(nn.Module):
    """Segments are of the length that it was built for, however far a batch is padded."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.length = shape.length
        self.project = Projections(shape)
        self.near = nn.Conv2d(shape.heads, shape.heads, (KERNEL, 1), padding=(KERNEL // 2, 0), groups=shape.heads)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        tokens = x.shape[1]
        x, valid = F.pad(x, (0, 0, 0, self.length - tokens)), F.pad(valid, (0, self.length - tokens))
        q, k, v = self.project.split(x)
        mask = valid[:, None, :, None].to(x.dtype)
        v = v * mask
        scale = q.shape[-1] ** -0.5
        short_q, short_k = (_means(one, mask) for one in (q, k))
        far = torch.zeros_like(mask).masked_fill(mask == 0, float("-inf")).transpose(-1, -2)
        first = torch.softmax(scale * q @ short_k.transpose(-1, -2), -1)
        middle = torch.softmax(scale * short_q @ short_k.transpose(-1, -2), -1)
        last = torch.softmax(scale * short_q @ k.transpose(-1, -2) + far, -1)
        y = first @ (_inverse(middle) @ (last @ v)) + self.near(v)
        return self.project.join(y[:, :, :tokens])


def _means(x: Tensor, mask: Tensor) -> Tensor:
    """The mean over the valid tokens of each of as many equal segments: [B, H, L, D]."""
    missing = -x.shape[2] % LANDMARKS
    sums, counts = (F.pad(one, (0, 0, 0, missing)).unflatten(2, (LANDMARKS, -1)).sum(3) for one in (x * mask, mask))
    return sums / counts.clamp(min=1)


def _inverse(a: Tensor) -> Tensor:
    """The pseudo-inverse by the paper's iteration of third order."""
    unit = torch.eye(a.shape[-1], device=a.device, dtype=a.dtype)
    z = a.transpose(-1, -2) / (a.sum(-2).amax(-1) * a.sum(-1).amax(-1))[..., None, None]
    for _ in range(INVERSE_STEPS):
        az = a @ z
        z = 0.25 * z @ (13 * unit - az @ (15 * unit - az @ (7 * unit - az)))
    return z
