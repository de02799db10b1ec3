"""The recurrence of RWKV-6 (arXiv:2404.05892, sec. 4), and of RWKV-5, whose decays do not change: a matrix a head,
decayed channel by channel. Its function and its implementations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rwkv_core.wkv import matrix_state
from rwkv_core.wkv.operator import FLA_ROUNDING, Implementation, Operator, fla_lacks, triton_lacks
from rwkv_core.wkv.wkv6 import c, chunked, fla, reference


def _triton(*inputs: Any) -> tuple[Tensor, Tensor]:
    from rwkv_core.wkv.wkv6 import triton_forward  # without triton the other implementations work

    return triton_forward.wkv6(*inputs)


def wkv6(
    u: Tensor,
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    state: Tensor | None = None,
    lengths: Tensor | None = None,
    out: Tensor | None = None,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """What each head's matrix gives for a query, before its token is written into the matrix.

    y_t = r_t (S_{t-1} + diag(u) k_t^T v_t);  S_t = diag(exp(w_t)) S_{t-1} + k_t^T v_t

    u [H, N]: bonus of the current token. r, k, v [B, T, H, N], none of them 0: query ("receptance"), key, value.
    w [B, T, H, N]: log-decay of each token, never positive; RWKV-5 expands one of [H, N].
    state [B, H, key, value]: float32, from an earlier call; zeros where there is none.
    lengths [B]: a row's state is taken after that many tokens, at most T; y beyond it means nothing.
    out [B, T, H, N], contiguous, of v's type, sharing no memory with the inputs: takes y without a new allocation; not
    where gradients are wanted.
    Returns y [B, T, H, N] in v's type and the state; computed in float32, or in float64 for float64 v.
    Raises ValueError where the shapes do not fit, BadInput for an impl that is unknown or cannot be used.
    """
    return matrix_state.call(WKV6, {"u": u}, {"r": r, "w": w, "k": k, "v": v}, state, lengths, out, impl)


def _example(
    shape: tuple[int, int, int], device: str, dtype: torch.dtype, seed: int = 0
) -> tuple[tuple[Tensor, ...], Tensor]:
    """u [H, N], r, w, k, v [B, T, H, N] and a gradient of y: decays as a trained model has them, the rest normal."""
    generator = torch.Generator().manual_seed(seed)
    batch, tokens, channels = shape
    size = matrix_state.head_size(channels)
    split = (batch, tokens, channels // size, size)
    u = torch.randn(split[2:], generator=generator)
    w = -torch.exp(torch.empty(split).uniform_(-8, 1, generator=generator))
    r, k, v, dy = (torch.randn(split, generator=generator).to(device, dtype) for _ in range(4))
    return (u.to(device), r, w.to(device), k, v), dy


WKV6 = Operator(
    "wkv6",
    wkv6,
    {
        "reference": Implementation(reference.wkv6),
        "torch": Implementation(chunked.wkv6),
        "c": Implementation(c.wkv6, c.LIBRARY.lacks),
        "triton": Implementation(_triton, triton_lacks, half=True, gradients=False),
        "fla": Implementation(fla.wkv6, fla_lacks, half=True, rounding=FLA_ROUNDING),
    },
    _example,
    {"forward": 5, "forward+backward": 9},  # r, w, k, v, y; then r, w, k, v, dy, dr, dw, dk, dv
    # S read, decayed, added to; then it is made again, and four products, G decayed and added to
    {"forward": 3, "forward+backward": 11},
)
