"""The WKV operator of RWKV-4 (paper v2, eq. 16): its function and its implementations."""

from __future__ import annotations

import functools
import importlib.util
from typing import Any

import torch
from torch import Tensor

from rwkv_core.wkv.operator import Implementation, Operator
from rwkv_core.wkv.wkv4 import autograd, c, chunked, reference
from rwkv_core.wkv.wkv4.reference import State, initial_state


def _triton(*inputs: Any) -> tuple[Tensor, State]:
    from rwkv_core.wkv.wkv4 import triton_backward, triton_forward  # without triton the other implementations work

    return autograd.wkv4(triton_forward.forward, triton_backward.backward, *inputs)


def _triton_lacks(device: torch.device, dtype: torch.dtype) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    import triton

    if device.type != "cuda" and not triton.knobs.runtime.interpret:
        return f"it runs on a CUDA device, not on {device.type}"
    if dtype == torch.float64:
        return "it computes in float32"
    return None


def wkv4(
    w: Tensor,
    u: Tensor,
    k: Tensor,
    v: Tensor,
    state: State | None = None,
    lengths: Tensor | None = None,
    out: Tensor | None = None,
    impl: str = "auto",
) -> tuple[Tensor, State]:
    """Weighted sum of the values seen so far, older ones decayed (paper v2, eq. 16).

    y_t = (sum_{i<t} e^{(t-1-i)w + k_i} v_i + e^{u+k_t} v_t) / (sum_{i<t} e^{(t-1-i)w + k_i} + e^{u+k_t})

    w [C]: log-decay per step, -exp(time_decay), never positive. u [C]: bonus of the current token.
    k, v [B, T, C], none of them 0; k of any size, |v| up to 1e15. state: (a, b, p), float32 [B, C] each, from an
    earlier call; it stands for the sums a*exp(p) and b*exp(p), and only through them do gradients pass.
    lengths [B]: a row's state is taken after that many tokens, at most T; y beyond it means nothing.
    out [B, T, C], contiguous, of v's type, sharing no memory with k and v: takes y without a new allocation; not
    where gradients are wanted.
    Returns y [B, T, C] in v's type and the state; computed in float32, or in float64 for float64 k.
    Raises ValueError where the shapes do not fit, BadInput for an impl that is unknown or cannot be used.
    """
    batch, tokens, channels = k.shape
    if v.shape != k.shape or w.shape != (channels,) or u.shape != (channels,) or k.numel() == 0:
        raise ValueError(
            f"wkv4 wants k, v [B, T, C], none of them 0, and w, u [C], got k {list(k.shape)}, v {list(v.shape)}, "
            f"w {list(w.shape)}, u {list(u.shape)}"
        )
    exact = torch.float64 if k.dtype is torch.float64 else torch.float32
    if state is None:
        state = initial_state(batch, channels, k.device, exact)
    elif any(part.shape != (batch, channels) for part in state):
        raise ValueError(f"wkv4 wants a state of three [{batch}, {channels}], got {[list(s.shape) for s in state]}")
    if lengths is not None:
        if lengths.shape != (batch,):
            raise ValueError(f"wkv4 wants lengths [{batch}], got {list(lengths.shape)}")
        lengths = lengths.clamp(0, tokens)
    beside = (w, u, v, *state) if lengths is None else (w, u, v, *state, lengths)
    if any(x.device != k.device for x in beside):
        raise ValueError(
            f"wkv4 wants all tensors on one device, got k on {k.device} and {[str(x.device) for x in beside]}"
        )
    state = (_as(state[0], exact), _as(state[1], exact), _as(state[2], exact))
    gradients = torch.is_grad_enabled() and any(x.requires_grad for x in (w, u, k, v, *state))
    if out is not None and (
        gradients or out.shape != v.shape or (out.dtype, out.device) != (v.dtype, v.device) or not out.is_contiguous()
    ):
        raise ValueError(
            f"wkv4's `out` must be contiguous and like v ({v.dtype}, {list(v.shape)}, {v.device}), without gradients; "
            f"got {out.dtype}, {list(out.shape)}, {out.device}{', with gradients' if gradients else ''}"
        )
    implementation = WKV4.implementations[WKV4.choose(impl, k.device, exact)]
    inner = k.dtype if implementation.half and k.dtype == v.dtype else exact
    direct = out if v.dtype == inner else None
    w, u = _as(w, exact), _as(u, exact)
    y, state = implementation.run(w, u, _as(k, inner), _as(v, inner), state, lengths, direct)
    if out is not None and direct is None:
        return out.copy_(y), state
    return _as(y, v.dtype), state


def _as(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x if x.dtype is dtype else x.to(dtype)  # the check is several times cheaper than `to`


def _example(
    shape: tuple[int, int, int], device: str, dtype: torch.dtype, seed: int = 0
) -> tuple[tuple[Tensor, ...], Tensor]:
    """w, u [C] float32, k, v [B, T, C] and a gradient of y: decays as a trained model has them, the rest normal."""
    generator = torch.Generator().manual_seed(seed)
    w = -torch.exp(torch.empty(shape[2]).uniform_(-8, 3, generator=generator))
    u = torch.randn(shape[2], generator=generator)
    k, v, dy = (torch.randn(shape, generator=generator).to(device, dtype) for _ in range(3))
    return (w.to(device), u.to(device), k, v), dy


WKV4 = Operator(
    "wkv4",
    wkv4,
    {
        "reference": Implementation(reference.wkv4),
        "torch": Implementation(chunked.wkv4),
        "c": Implementation(functools.partial(autograd.wkv4, c.forward, c.backward), c.LIBRARY.lacks),
        "triton": Implementation(_triton, _triton_lacks, half=True),
    },
    _example,
    {"forward": 3, "forward+backward": 8},  # k, v, y; then k, v, dy, dk, dv
)
