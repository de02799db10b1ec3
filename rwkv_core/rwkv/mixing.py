"""What the versions of RWKV share: each token is mixed with the one before it ("token shift"), at odd lengths too."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def shift(x: Tensor, last: Tensor) -> Tensor:
    """x [B, T, C] one step later, `last` [B, C] before it; of a single token [B, C], `last` itself."""
    if x.dim() == 2:
        return last
    return torch.cat([last[:, None], x[:, :-1]], 1)


def at_end(x: Tensor, last: Tensor, lengths: Tensor | None) -> Tensor:
    """The vector [B, C] of x [B, T, C] or [B, C] at each row's last true token; `last` where a row has none."""
    if x.dim() == 2:
        return x
    if lengths is None:
        return x[:, -1]
    ends = x[torch.arange(len(x), device=x.device), (lengths - 1).clamp(min=0)]
    return torch.where((lengths > 0)[:, None], ends, last)


def mix(x: Tensor, shifted: Tensor, share: Tensor, matrix: nn.Linear) -> Tensor:
    """W (mu x_t + (1 - mu) x_{t-1}), paper eqs. 11-13 and 18; `share` is mu, stored as [1, 1, C]."""
    return F.linear(torch.lerp(shifted, x, share.view(-1)), matrix.weight)
