"""WKV of RWKV-7 on the CPU in C: wkv7.c."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rwkv_core.wkv.compiled import Library

Saved = tuple[Tensor | None, Tensor | None]  # the state entering each span [B, H, spans, N, N]; a S [B, T, H, N]

LIBRARY = Library(__file__, sizes=4, pointers=20)


def forward(inputs: Sequence[Tensor], lengths: Tensor | None, y: Tensor, save: bool) -> tuple[Tensor, Saved]:
    """Fill y [B, T, H, N]; returns the state after it and, with `save`, what backward needs.

    All contiguous on the CPU, float32: r, w, k, v, a, b [B, T, H, N] and the state [B, H, N, N]; lengths int64 [B].
    """
    batch, tokens, heads, size = y.shape
    carries, removed = None, None
    if save:
        carries, removed = y.new_empty(batch, heads, -(-tokens // LIBRARY.span()), size, size), torch.empty_like(y)
    end = torch.empty_like(inputs[-1])
    LIBRARY.run(y.shape, *inputs, lengths, carries, removed, y, end)
    return end, (carries, removed)


def backward(
    inputs: Sequence[Tensor], lengths: Tensor | None, saved: Saved, dy: Tensor, dstate: Tensor
) -> list[Tensor]:
    """Gradients of r, w, k, v, a, b and the initial state from those of y and of the state after it."""
    *sequences, _ = inputs
    gradients = [torch.empty_like(x) for x in inputs]
    LIBRARY.run(dy.shape, *sequences, dstate, lengths, *saved, None, None, dy, *gradients)
    return gradients
