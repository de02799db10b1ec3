"""What the kernels of WKV in other languages share: autograd around their forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rwkv_core.wkv.wkv4.reference import State


def wkv4(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    w: Tensor,
    u: Tensor,
    k: Tensor,
    v: Tensor,
    state: State,
    lengths: Tensor | None,
    out: Tensor | None,
) -> tuple[Tensor, State]:
    """k, v [B, T, C] -> y [B, T, C] and the state after each row's length, by a kernel's two functions."""
    w, u, k, v = (x.contiguous() for x in (w, u, k, v))
    a, b, p = (x.contiguous() for x in state)
    if lengths is not None:
        lengths = lengths.long().contiguous()
    inputs = (w, u, k, v, a, b, p)
    if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
        y, a, b, p = _Wkv4.apply(forward, backward, lengths, *inputs)
        return y, (a, b, p)
    y = torch.empty_like(v) if out is None else out
    state, _ = forward(w, u, k, v, (a, b, p), lengths, y, save=False)
    return y, state


class _Wkv4(torch.autograd.Function):
    """A state's gradient is that of the sums it stands for, a*exp(p) and b*exp(p): p has none of its own."""

    @staticmethod
    def forward(
        ctx: Any, run: Callable[..., Any], back: Callable[..., Any], lengths: Tensor | None, *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        w, u, k, v, a, b, p = inputs
        y = torch.empty_like(v)
        state, ctx.saved = run(w, u, k, v, (a, b, p), lengths, y, save=True)
        ctx.back = back
        ctx.save_for_backward(w, u, k, v, a, b, lengths)
        ctx.mark_non_differentiable(state[2])
        return y, *state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, da: Tensor, db: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        w, u, k, v, a, b, lengths = ctx.saved_tensors
        dstate = da.contiguous(), db.contiguous()
        dw, du, dk, dv, da, db = ctx.back(w, u, k, v, lengths, ctx.saved, dy.contiguous(), dstate)
        return None, None, None, dw, du, dk, dv, da, db, a * da + b * db
