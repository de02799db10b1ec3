"""RWKV-7's recurrence by flash-linear-attention, in Triton on a CUDA device."""

from __future__ import annotations

from torch import Tensor

from rwkv_core.wkv.matrix_state import zero_beyond


def wkv7(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    state: Tensor,
    lengths: Tensor | None,
    out: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """r, w, k, v, a, b [B, T, H, N] -> y [B, T, H, N] and the state after each row's length."""
    from fla.ops.rwkv7 import chunk_rwkv7

    if lengths is not None:  # which it knows of sequences in one row alone
        w, k, b = (zero_beyond(lengths, x) for x in (w, k, b))
    y, state = chunk_rwkv7(r, w, k, v, a, b, scale=1.0, initial_state=state, output_final_state=True)
    return (y if out is None else out.copy_(y)), state
