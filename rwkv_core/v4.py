"""RWKV-4's two sublayers (paper v2, sec. 3.1-3.2, eqs. 11-19). Names of weights are those of BlinkDL's checkpoints.

Both mix each token with the one before it ("token shift"), so both carry their last input as state.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rwkv_core.wkv import State, wkv4


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
    """W (mu x_t + (1 - mu) x_{t-1}), eqs. 11-13 and 18; `share` is mu, stored as [1, 1, C]."""
    return F.linear(torch.lerp(shifted, x, share.view(-1)), matrix.weight)


class TimeMix(nn.Module):
    """The attention-like sublayer: W_o (sigmoid(r) * wkv), eqs. 11-17."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.time_decay = nn.Parameter(torch.empty(inner))
        self.time_first = nn.Parameter(torch.empty(inner))
        self.time_mix_k = nn.Parameter(torch.empty(1, 1, width))
        self.time_mix_v = nn.Parameter(torch.empty(1, 1, width))
        self.time_mix_r = nn.Parameter(torch.empty(1, 1, width))
        self.key = nn.Linear(width, inner, bias=False)
        self.value = nn.Linear(width, inner, bias=False)
        self.receptance = nn.Linear(width, inner, bias=False)
        self.output = nn.Linear(inner, width, bias=False)

    def forward(
        self, x: Tensor, last: Tensor, state: State, w: Tensor, lengths: Tensor | None, impl: str
    ) -> tuple[Tensor, Tensor, State]:
        """x [B, T, C] or [B, C], w = -exp(time_decay) -> output like x, the input to shift in next, the WKV state."""
        shifted = shift(x, last)
        k = mix(x, shifted, self.time_mix_k, self.key)
        v = mix(x, shifted, self.time_mix_v, self.value)
        r = torch.sigmoid(mix(x, shifted, self.time_mix_r, self.receptance))
        sequence = (len(k), -1, k.shape[-1])  # a single token is a sequence of one
        y, state = wkv4(w, self.time_first.float(), k.view(sequence), v.view(sequence), state, lengths, impl=impl)
        return F.linear(r * y.view_as(r), self.output.weight), at_end(x, last, lengths), state


class ChannelMix(nn.Module):
    """The feed-forward sublayer: sigmoid(r) * W_v max(k, 0)^2, eqs. 18-19."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.time_mix_k = nn.Parameter(torch.empty(1, 1, width))
        self.time_mix_r = nn.Parameter(torch.empty(1, 1, width))
        self.key = nn.Linear(width, inner, bias=False)
        self.receptance = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, last: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """x [B, T, C] or [B, C] -> output like x and the input to shift in next."""
        shifted = shift(x, last)
        k = torch.relu(mix(x, shifted, self.time_mix_k, self.key))
        r = torch.sigmoid(mix(x, shifted, self.time_mix_r, self.receptance))
        return r * F.linear(k * k, self.value.weight), at_end(x, last, lengths)
