"""WKV on the CPU in C: wkv4.c."""

from __future__ import annotations

import torch
from torch import Tensor

from rwkv_core.wkv.compiled import Library
from rwkv_core.wkv.wkv4.reference import State

Saved = tuple[Tensor | None, Tensor | None]  # the state entering each span [3, B, N, C]; p at the end [B, C]

LIBRARY = Library(__file__, sizes=3, pointers=17)


def forward(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: State, lengths: Tensor | None, y: Tensor, save: bool
) -> tuple[State, Saved]:
    """Fill y [B, T, C]; returns the final state and, with `save`, what backward needs.

    All contiguous on the CPU, float32: w, u [C], k, v [B, T, C], state three [B, C]; lengths int64 [B].
    """
    batch, tokens, channels = k.shape
    carries = None
    if save:
        carries = k.new_empty(3, batch, -(-tokens // LIBRARY.span()), channels)
    end = k.new_empty(3, batch, channels)
    LIBRARY.run(k.shape, w, u, k, v, lengths, carries, *state, y, end)
    a, b, p_end = end.unbind()
    return (a, b, p_end), (carries, p_end.clone() if save else None)


def backward(
    w: Tensor,
    u: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None,
    saved: Saved,
    dy: Tensor,
    dstate: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of w, u [C], k, v [B, T, C] and the initial a, b [B, C] from those of y and the final a, b."""
    batch, _, channels = k.shape
    carries, end_p = saved
    dk, dv = torch.empty_like(k), torch.empty_like(v)
    start = k.new_empty(2, batch, channels)
    dw, du = k.new_empty(2, batch, channels, dtype=torch.float64)
    LIBRARY.run(k.shape, w, u, k, v, lengths, carries, *dstate, end_p, None, None, dy, dk, dv, start, dw, du)
    return dw.sum(0).float(), du.sum(0).float(), dk, dv, start[0], start[1]
