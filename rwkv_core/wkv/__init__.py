"""The WKV operator of RWKV-4: one door, several implementations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rwkv_core.spec import BadInput
from rwkv_core.wkv import parallel, reference
from rwkv_core.wkv.reference import State, initial_state

Implementation = Callable[[Tensor, Tensor, Tensor, Tensor, State, Tensor | None], tuple[Tensor, State]]

IMPLEMENTATIONS: dict[str, Implementation] = {
    "reference": reference.wkv4,
    "torch": parallel.wkv4,
}


def choose(impl: str) -> str:
    """The implementation that `impl` stands for; BadInput where there is none of that name."""
    if impl == "auto":
        return "torch"
    if impl not in IMPLEMENTATIONS:
        raise BadInput(f"no WKV implementation {impl!r}: choose auto, {', '.join(IMPLEMENTATIONS)}")
    return impl


def wkv4(
    w: Tensor,
    u: Tensor,
    k: Tensor,
    v: Tensor,
    state: State | None = None,
    lengths: Tensor | None = None,
    impl: str = "auto",
) -> tuple[Tensor, State]:
    """Weighted sum of the values seen so far, older ones decayed (paper v2, eq. 16).

    y_t = (sum_{i<t} e^{(t-1-i)w + k_i} v_i + e^{u+k_t} v_t) / (sum_{i<t} e^{(t-1-i)w + k_i} + e^{u+k_t})

    w [C]: log-decay per step, -exp(time_decay), never positive. u [C]: bonus of the current token.
    k, v [B, T, C], T >= 1. state: (a, b, p), float32 [B, C] each, from an earlier call. lengths [B]:
    a row's state is taken after that many tokens; y beyond it means nothing.
    Returns y [B, T, C] in v's type and the state; computed in float32, or in float64 for float64 k.
    Raises ValueError where the shapes do not fit, BadInput for an unknown impl.
    """
    batch, tokens, channels = k.shape
    if v.shape != k.shape or w.shape != (channels,) or u.shape != (channels,) or tokens == 0:
        raise ValueError(
            f"wkv4 wants k, v [B, T>0, C] and w, u [C], got k {list(k.shape)}, v {list(v.shape)}, "
            f"w {list(w.shape)}, u {list(u.shape)}"
        )
    exact = torch.promote_types(k.dtype, torch.float32)
    if state is None:
        state = initial_state(batch, channels, k.device, exact)
    elif any(part.shape != (batch, channels) for part in state):
        raise ValueError(f"wkv4 wants a state of three [{batch}, {channels}], got {[list(s.shape) for s in state]}")
    run = IMPLEMENTATIONS[choose(impl)]
    y, state = run(w.to(exact), u.to(exact), k.to(exact), v.to(exact), state, lengths)
    return y.to(v.dtype), state
