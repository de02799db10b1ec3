"""The recurrence of RWKV-5 and RWKV-6 on the CPU in C: wkv6.c."""

from __future__ import annotations

import torch
from torch import Tensor

from rwkv_core.wkv.compiled import Library

LIBRARY = Library(__file__, sizes=6, pointers=17)


def forward(
    u: Tensor,
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    state: Tensor,
    lengths: Tensor | None,
    y: Tensor,
    save: bool,
) -> tuple[Tensor, Tensor | None]:
    """Fill y [B, T, H, N]; returns the final state and, with `save`, what backward needs.

    All contiguous on the CPU, float32: u [H, N], r, w, k, v [B, T, H, N], state [B, H, N, N]; lengths int64 [B]. w may
    be expanded from [H, N].
    """
    batch, tokens, heads, size = v.shape
    saved = v.new_empty(batch, heads, -(-tokens // LIBRARY.span()), size, size) if save else None
    end = v.new_empty(batch, heads, size, size)
    LIBRARY.run(_sizes(v, w), u, r, w, k, v, lengths, saved, state, y, end)
    return end, saved


def backward(
    u: Tensor,
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None,
    saved: Tensor,
    dy: Tensor,
    dstate: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u, r, w, k, v and the initial state from those of y and the final state."""
    dr, dw, dk, dv = (v.new_empty(v.shape) for _ in range(4))
    start = v.new_empty(dstate.shape)
    du = v.new_empty(v.shape[0], *u.shape, dtype=torch.float64)
    LIBRARY.run(_sizes(v, w), u, r, w, k, v, lengths, saved, dstate, None, None, dy, dr, dw, dk, dv, start, du)
    return du.sum(0).float(), dr, dw, dk, dv, start


def _sizes(v: Tensor, w: Tensor) -> tuple[int, ...]:
    """The sizes in `Call`: w's strides are all that may be 0."""
    return (*v.shape, w.stride(0), w.stride(1))
