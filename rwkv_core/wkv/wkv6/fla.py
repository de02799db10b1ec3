"""RWKV-6's recurrence by flash-linear-attention, in Triton on a CUDA device."""

from __future__ import annotations

from torch import Tensor

from rwkv_core.wkv.matrix_state import zero_beyond


def wkv6(
    u: Tensor, r: Tensor, w: Tensor, k: Tensor, v: Tensor, state: Tensor, lengths: Tensor | None, out: Tensor | None
) -> tuple[Tensor, Tensor]:
    """r, w, k, v [B, T, H, N] -> y [B, T, H, N] and the state after each row's length."""
    from fla.ops.rwkv6 import chunk_rwkv6

    if lengths is not None:  # which it knows of sequences in one row alone
        w, k = (zero_beyond(lengths, x) for x in (w, k))
    y, state = chunk_rwkv6(r, k, v, w, u, scale=1.0, initial_state=state, output_final_state=True)
    return (y if out is None else out.copy_(y)), state
