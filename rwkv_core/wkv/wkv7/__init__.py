"""The recurrence of RWKV-7 (arXiv:2503.14456, sec. 4), the generalised delta rule: a matrix a head, of which each token
removes what stands under one key before it writes under another. Its function and its implementations.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rwkv_core.wkv import autograd, matrix_state
from rwkv_core.wkv.operator import FLA_ROUNDING, Implementation, Operator, fla_lacks, triton_lacks
from rwkv_core.wkv.wkv7 import c, chunked, fla, reference

FASTEST = -0.6065306597  # -e^{-1/2}: RWKV-7's log-decay is FASTEST * sigmoid(..), a factor of 0.545 a token at least


def _triton(*inputs: Any) -> tuple[Tensor, Tensor]:
    from rwkv_core.wkv.wkv7 import triton_forward  # without triton the other implementations work

    return triton_forward.wkv7(*inputs)


def wkv7(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    state: Tensor | None = None,
    lengths: Tensor | None = None,
    out: Tensor | None = None,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """What each head's matrix gives for a query, after its token is written into the matrix.

    S_t = diag(exp(w_t)) S_{t-1} + b_t^T (a_t S_{t-1}) + k_t^T v_t;  y_t = r_t S_t

    Vectors are rows and S is [key, value], the transpose of the paper's. In RWKV-7, a = -kk and b = kk * (in-context
    learning rate), where kk is a key of length 1.

    r, k, v, a, b [B, T, H, N], none of them 0. w [B, T, H, N]: log-decay of each token, from -e^{-1/2} to 0.
    state [B, H, key, value]: float32, from an earlier call; zeros where there is none.
    lengths [B]: a row's state is taken after that many tokens, at most T; y beyond it means nothing.
    out [B, T, H, N], contiguous, of v's type, sharing no memory with the inputs: takes y without a new allocation; not
    where gradients are wanted.
    Returns y [B, T, H, N] in v's type and the state; computed in float32, or in float64 for float64 v.
    Raises ValueError where the shapes do not fit, BadInput for an impl that is unknown or cannot be used.
    """
    return matrix_state.call(WKV7, {}, {"r": r, "w": w, "k": k, "v": v, "a": a, "b": b}, state, lengths, out, impl)


def _example(
    shape: tuple[int, int, int], device: str, dtype: torch.dtype, seed: int = 0
) -> tuple[tuple[Tensor, ...], Tensor]:
    """r, w, k, v, a, b [B, T, H, N] and a gradient of y, as RWKV-7 gives them: the whole range of decays and rates."""
    generator = torch.Generator().manual_seed(seed)
    batch, tokens, channels = shape
    size = matrix_state.head_size(channels)
    split = (batch, tokens, channels // size, size)
    w, rate = (torch.sigmoid(3 * torch.randn(split, generator=generator)) for _ in range(2))
    kk = F.normalize(torch.randn(split, generator=generator), dim=-1)
    r, k, v, dy = (torch.randn(split, generator=generator).to(device, dtype) for _ in range(4))
    a, b = (-kk).to(device, dtype), (kk * rate).to(device, dtype)
    return (r, (FASTEST * w).to(device), k, v, a, b), dy


WKV7 = Operator(
    "wkv7",
    wkv7,
    {
        "reference": Implementation(reference.wkv7),
        "torch": Implementation(chunked.wkv7),
        "c": Implementation(functools.partial(autograd.call, c.forward, c.backward), c.LIBRARY.lacks),
        "triton": Implementation(_triton, triton_lacks, half=True, gradients=False),
        "fla": Implementation(fla.wkv7, fla_lacks, half=True, rounding=FLA_ROUNDING),
    },
    _example,
    {"forward": 7, "forward+backward": 13},  # six inputs and y; then six inputs, dy, six gradients
    # S read twice, decayed, added to twice; then it is made again, and seven products, G decayed and added to twice
    {"forward": 5, "forward+backward": 19},
)
