"""The oracle: the recurrence of RWKV-6 one token at a time, in float64 (arXiv:2404.05892, sec. 4)."""

from __future__ import annotations

import torch
from torch import Tensor


def step(u: Tensor, r: Tensor, w: Tensor, k: Tensor, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One token: u [H, N], the others [B, H, N], state [B, H, key, value] -> y [B, H, N] and the next state."""
    added = k[..., :, None] * v[..., None, :]
    y = (r[..., None, :] @ (state + u[..., None] * added))[..., 0, :]
    return y, torch.exp(w)[..., None] * state + added


def loop(
    u: Tensor, r: Tensor, w: Tensor, k: Tensor, v: Tensor, state: Tensor, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The recurrence over [B, T, H, N] in their own type; rows stop changing their state at their length."""
    outputs = []
    for t, token in enumerate(zip(r.unbind(1), w.unbind(1), k.unbind(1), v.unbind(1), strict=True)):
        y, after = step(u, *token, state)
        state = after if lengths is None else torch.where((t < lengths)[:, None, None, None], after, state)
        outputs.append(y)
    return torch.stack(outputs, 1), state


def wkv6(
    u: Tensor, r: Tensor, w: Tensor, k: Tensor, v: Tensor, state: Tensor, lengths: Tensor | None, out: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The loop in float64."""
    kind = v.dtype
    u, r, w, k, v, before = (x.double() for x in (u, r, w, k, v, state))
    y, after = loop(u, r, w, k, v, before, lengths)
    y, after = y.to(kind), after.to(state.dtype)
    return (y if out is None else out.copy_(y)), after
