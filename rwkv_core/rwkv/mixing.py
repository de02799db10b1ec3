"""What the versions of RWKV share: each token is mixed with the one before it ("token shift"), at odd lengths too; the
squared ReLU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rwkv_core.wkv.compiled import Library

LIBRARY = Library(__file__, sizes=5, pointers=20)
MOST = 6  # shares of one call to mixing.c
FEWEST = 1 << 12  # numbers that are worth a call; torch is done sooner with a token or two


def shift(x: Tensor, last: Tensor) -> Tensor:
    """x [B, T, C] one step later, `last` [B, C] before it; of a single token [B, C], `last` itself."""
    if x.dim() == 2:
        return last
    return torch.cat([last[:, None], x[:, :-1]], 1)


def mix(
    x: Tensor, last: Tensor, shares: Sequence[Tensor], *, current: bool = False, parts: Tensor | None = None
) -> Iterator[Tensor]:
    """For each share s an input (1 - s) x_t + s x_{t-1}, like x (paper eqs. 11-13 and 18, where mu = 1 - s).

    In C all are made at once, by torch each when it is asked for, so that one at a time takes memory.

    x [B, T, C] or [B, C]; last [B, C]: the token before it.
    shares: C numbers each; current: they are the current token's, mu.
    parts [n, B T, C]: what each token adds to each of its n shares, if anything. Its memory is used for the result
        where no gradients are recorded.
    """
    if _compiled(x, last, *shares, *([] if parts is None else [parts])):
        if not _recorded(x, last, *shares, parts):
            parts = None if parts is None else parts.contiguous()
            return iter(_forward(x.contiguous(), last, shares, current, parts, parts))
        return iter(_Mix.apply(x, last, parts, current, *shares))
    shifted = shift(x, last)
    start, end = (shifted, x) if current else (x, shifted)
    weights = (share.view(-1) for share in shares)
    if parts is not None:
        weights = (share.view(-1) + part.view_as(x) for share, part in zip(shares, parts, strict=True))
    return (torch.lerp(start, end, weight) for weight in weights)


def add_(x: Tensor, residual: Tensor) -> Tensor:
    """x + residual. x, which nothing else reads, is overwritten where it has the result's type."""
    return x.add_(residual) if x.dtype == residual.dtype else x + residual


def squared_relu_(x: Tensor) -> Tensor:
    """max(x, 0)^2. x, a product that nothing else reads, is overwritten."""
    if not _compiled(x):
        x = torch.relu(x)
        return x * x
    return _SquaredReLU.apply(x) if _recorded(x) else _square(x.contiguous())


def _compiled(*tensors: Tensor) -> bool:
    """Whether mixing.c computes with these, or torch."""
    device = tensors[0].device
    if tensors[0].numel() < FEWEST or any(x.dtype != torch.float32 or x.device != device for x in tensors):
        return False
    return LIBRARY.lacks(device, torch.float32) is None


def _recorded(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def _sizes(x: Tensor, shares: int, current: bool) -> tuple[int, ...]:
    return len(x), x.numel() // (len(x) * x.shape[-1]), x.shape[-1], shares, current


def _forward(
    x: Tensor, last: Tensor, shares: Sequence[Tensor], current: bool, parts: Tensor | None, out: Tensor | None
) -> Sequence[Tensor]:
    y = x.new_empty(len(shares), *x.shape) if out is None else out
    vectors = [share.contiguous() for share in shares]
    LIBRARY.run(_sizes(x, len(shares), current), x, last.contiguous(), parts, y, None, None, None, None, *vectors)
    return y.view(-1, *x.shape).unbind()


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, last: Tensor, parts: Tensor | None, current: bool, *shares: Tensor
    ) -> tuple[Tensor, ...]:
        x, last, parts = x.contiguous(), last.contiguous(), None if parts is None else parts.contiguous()
        ctx.current = current
        ctx.save_for_backward(x, last, parts, *shares)
        ctx.set_materialize_grads(False)
        return tuple(_forward(x, last, shares, current, parts, None))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *dy: Tensor | None) -> tuple[Tensor | None, ...]:
        x, last, parts, *shares = ctx.saved_tensors
        sizes = _sizes(x, len(shares), ctx.current)
        batch, tokens, channels, *_ = sizes
        dx, dlast = torch.empty_like(x), torch.empty_like(last)
        dshares = x.new_empty(batch * -(-tokens // LIBRARY.span()), len(shares), channels)
        dparts = None if parts is None else torch.empty_like(parts)
        vectors = [*(share.contiguous() for share in shares), *[None] * (MOST - len(shares))]
        slopes = [None if slope is None else slope.contiguous() for slope in dy]
        LIBRARY.run(sizes, x, last, parts, None, dx, dlast, dshares, dparts, *vectors, *slopes)
        each = dshares.sum(0)
        return dx, dlast, dparts, None, *(one.view_as(share) for one, share in zip(each, shares, strict=True))


def _square(x: Tensor) -> Tensor:
    LIBRARY.run(_sizes(x, 0, False), x, None, None, x)
    return x


class _SquaredReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x)
        y = torch.empty_like(x)
        LIBRARY.run(_sizes(x, 0, False), x, None, None, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        dx = torch.empty_like(x)
        unused = [None] * (MOST + 3)
        LIBRARY.run(_sizes(x, 0, False), x, None, None, None, dx, *unused, dy.contiguous())
        return dx
