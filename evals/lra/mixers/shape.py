"""What every mixer is built from, and what several share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evals.train.recipe import Undecayed


@dataclass(frozen=True)
class Shape:
    """width C, split over `heads`; the `length` T that is trained on; which of the `layers` it is, from 0; whether a
    token sees later ones.
    """

    width: int
    heads: int
    length: int
    layer: int
    layers: int
    bidirectional: bool


class Positions(Undecayed):
    """Weights for each position [T, ...]. Their number is the length's: no budget holds them."""


def angles(tokens: int, count: int, device: torch.device | None = None) -> Tensor:
    """[T, count] in radians, float64: each place turned so many ways, the last slowly (arXiv:1706.03762, sec. 3.5)."""
    turns = 10000 ** (-torch.arange(count, dtype=torch.float64, device=device) / count)
    return torch.arange(tokens, device=device)[:, None] * turns


def rotated(x: Tensor) -> Tensor:
    """x [..., T, D]: pairs of channels, each turned by its angle at each place (arXiv:2104.09864, eq. 15)."""
    turns = angles(x.shape[-2], x.shape[-1] // 2, x.device).to(x.dtype)
    sin, cos = turns.sin(), turns.cos()
    even, odd = x[..., ::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, odd * cos + even * sin], -1).flatten(-2)


class Projections(nn.Module):
    """Queries, keys and values [B, H, T, C/H] of x [B, T, C], and the way back."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.inward = nn.Linear(shape.width, 3 * shape.width)
        self.outward = nn.Linear(shape.width, shape.width)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch, tokens, width = x.shape
        q, k, v = self.inward(x).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        return q, k, v

    def join(self, y: Tensor) -> Tensor:
        return self.outward(y.transpose(1, 2).flatten(2))


def in_blocks(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention of each block of queries [B, H, N, W, D] to its own keys and values [B, H, N, M, D]: [B, H, N W, D].
    mask: [B, N, 1 or W, M]. Blocks are rows of one batch, or torch would not take its fused way.
    """
    rows, keys, values = (one.transpose(1, 2).flatten(0, 1) for one in (q, k, v))
    y = F.scaled_dot_product_attention(rows, keys, values, attn_mask=mask.flatten(0, 1)[:, None])
    return y.unflatten(0, (len(q), -1)).transpose(1, 2).flatten(2, 3)


def turned(x: Tensor, valid: Tensor) -> Tensor:
    """Each row's valid tokens in reverse order; its padding stays where it is. x [B, T, ...], valid [B, T]."""
    tokens = x.shape[1]
    place = torch.arange(tokens, device=x.device)
    lengths = valid.sum(1, keepdim=True)
    source = torch.where(place < lengths, lengths - 1 - place, place)
    return x.gather(1, source.view(*source.shape, *[1] * (x.dim() - 2)).expand_as(x))


def each_way(ways: nn.ModuleList, run: Callable[[Any, Tensor], Tensor], x: Tensor, valid: Tensor) -> list[Tensor]:
    """What the first of `ways` gives forwards, and the second, if there is one, backwards."""
    results = [run(ways[0], x)]
    if len(ways) == 2:
        results.append(turned(run(ways[1], turned(x, valid)), valid))
    return results


def scan(a: Tensor, b: Tensor) -> Tensor:
    """h_t = a_t h_{t-1} + b_t along dimension 1, from h_0 = 0: in chunks side by side, then from each to the next, in
    about two roots of T steps.
    """
    tokens = b.shape[1]
    each = math.isqrt(tokens - 1) + 1
    missing = [*[0, 0] * (b.dim() - 2), 0, -tokens % each]
    a, b = (F.pad(one, missing).unflatten(1, (-1, each)) for one in (a.expand_as(b), b))
    state, product = torch.zeros_like(b[:, :, 0]), torch.ones_like(b[:, :, 0])
    states, products = [], []
    for keep, new in zip(a.unbind(2), b.unbind(2), strict=True):
        state, product = keep * state + new, keep * product
        states.append(state)
        products.append(product)
    carry, carries = torch.zeros_like(b[:, 0, 0]), []
    for last, factor in zip(state.unbind(1), product.unbind(1), strict=True):
        carries.append(carry)
        carry = factor * carry + last
    before = torch.stack(carries, 1)[:, :, None]
    return (torch.stack(states, 2) + torch.stack(products, 2) * before).flatten(1, 2)[:, :tokens]


def convolved_each_way(kernels: nn.ModuleList, x: Tensor, valid: Tensor) -> Tensor:
    """The sum of `each_way`; a kernel is drawn for a number of tokens: [T, C]."""
    return torch.stack(each_way(kernels, lambda kernel, x: convolved(x, kernel(x.shape[1])), x, valid)).sum(0)


def convolved(x: Tensor, kernel: Tensor) -> Tensor:
    """Causal convolution along dimension 1 by FFT: x [B, T, C], kernel [T, C]."""
    size = 2 * x.shape[1]
    spectrum = torch.fft.rfft(x, n=size, dim=1) * torch.fft.rfft(kernel, n=size, dim=0)
    return torch.fft.irfft(spectrum, n=size, dim=1)[:, : x.shape[1]]
