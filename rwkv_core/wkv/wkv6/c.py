"""The recurrence of RWKV-5 and RWKV-6 on the CPU in C: wkv6.c."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rwkv_core.wkv import autograd
from rwkv_core.wkv.compiled import Library

LIBRARY = Library(__file__, sizes=5, pointers=18)


def wkv6(
    u: Tensor, r: Tensor, w: Tensor, k: Tensor, v: Tensor, state: Tensor, lengths: Tensor | None, out: Tensor | None
) -> tuple[Tensor, Tensor]:
    """y [B, T, H, N] and the state after each row's length. A w that is expanded from [H, N] is read as that."""
    steady = w.stride()[:2] == (0, 0)
    return autograd.call(forward, backward, u, r, w[0, 0] if steady else w, k, v, state, lengths, out)


def forward(inputs: Sequence[Tensor], lengths: Tensor | None, y: Tensor, save: bool) -> tuple[Tensor, Tensor | None]:
    """Fill y [B, T, H, N]; returns the final state and, with `save`, the state entering each span.

    inputs: u [H, N], r, w, k, v [B, T, H, N], state [B, H, N, N], contiguous on the CPU, float32; a w of all tokens
        may be [H, N]. lengths: int64 [B].
    """
    *_, w, _, v, state = inputs
    batch, tokens, heads, size = v.shape
    saved = v.new_empty(batch, heads, -(-tokens // LIBRARY.span()), size, size) if save else None
    end = torch.empty_like(state)
    LIBRARY.run((*v.shape, w.ndim == 2), *inputs[:-1], lengths, saved, state, y, end)
    return end, saved


def backward(
    inputs: Sequence[Tensor], lengths: Tensor | None, saved: Tensor, dy: Tensor, dstate: Tensor
) -> tuple[Tensor, ...]:
    """Gradients of the inputs of `forward` from those of y and the final state."""
    u, r, w, k, v, _ = inputs
    dr, dk, dv = torch.empty_like(r), torch.empty_like(k), torch.empty_like(v)
    steady = w.ndim == 2
    dw = None if steady else torch.empty_like(w)
    start = torch.empty_like(dstate)
    du, steady_dw = v.new_empty(2, v.shape[0], *u.shape, dtype=torch.float64)
    LIBRARY.run(
        (*v.shape, steady), *inputs[:-1], lengths, saved, dstate, None, None, dy, dr, dk, dv, dw, start, du, steady_dw
    )
    return du.sum(0).float(), dr, steady_dw.sum(0).float() if dw is None else dw, dk, dv, start
