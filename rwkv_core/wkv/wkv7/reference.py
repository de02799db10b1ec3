"""The oracle: the recurrence of RWKV-7 one token at a time, in float64 (arXiv:2503.14456, sec. 4)."""

from __future__ import annotations

import torch
from torch import Tensor


def step(r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One token: [B, H, N] each, state [B, H, key, value] -> y [B, H, N] and the next state."""
    removed = a[..., None, :] @ state
    state = torch.exp(w)[..., None] * state + b[..., None] * removed + k[..., None] * v[..., None, :]
    return (r[..., None, :] @ state)[..., 0, :], state


def loop(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The recurrence over [B, T, H, N] in their own type; rows stop changing their state at their length."""
    outputs = []
    tokens = zip(*(x.unbind(1) for x in (r, w, k, v, a, b)), strict=True)  # whose gradients cost less than of x[:, t]
    for t, (r_t, w_t, k_t, v_t, a_t, b_t) in enumerate(tokens):
        y, after = step(r_t, w_t, k_t, v_t, a_t, b_t, state)
        state = after if lengths is None else torch.where((t < lengths)[:, None, None, None], after, state)
        outputs.append(y)
    return torch.stack(outputs, 1), state


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
    """The loop in float64."""
    kind = v.dtype
    r, w, k, v, a, b, before = (x.double() for x in (r, w, k, v, a, b, state))
    y, after = loop(r, w, k, v, a, b, before, lengths)
    y, after = y.to(kind), after.to(state.dtype)
    return (y if out is None else out.copy_(y)), after
