"""The oracle: the WKV recurrence one token at a time, as the paper writes it (eqs. 16-21 of v2 App. D).

The state (a, b, p) stands for the sums a*exp(p) and b*exp(p): p is the largest exponent met so far,
so that no exponential of a positive number is ever taken.
"""

from __future__ import annotations

import torch
from torch import Tensor

State = tuple[Tensor, Tensor, Tensor]


def initial_state(batch: int, channels: int, device: torch.device, dtype: torch.dtype) -> State:
    """Empty sums: a = b = 0 at an exponent below every key. Three tensors [batch, channels]."""
    zero = torch.zeros(batch, channels, device=device, dtype=dtype)
    return zero, zero, torch.full_like(zero, -1e38)


def step(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: State) -> tuple[Tensor, State]:
    """One token: k, v [B, C] -> y [B, C] and the next state."""
    a, b, p = state
    current = u + k
    q = torch.maximum(p, current)
    past, now = torch.exp(p - q), torch.exp(current - q)
    y = (past * a + now * v) / (past * b + now)

    decayed = p + w
    p = torch.maximum(decayed, k)
    past, now = torch.exp(decayed - p), torch.exp(k - p)
    return y, (past * a + now * v, past * b + now, p)


def loop(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: State, lengths: Tensor | None) -> tuple[Tensor, State]:
    """The recurrence over k, v [B, T, C] in their own type; rows stop changing their state at their length."""
    outputs = []
    for t, (k_t, v_t) in enumerate(zip(k.unbind(1), v.unbind(1), strict=True)):
        y, after = step(w, u, k_t, v_t, state)
        if lengths is not None:
            inside = (t < lengths)[:, None]
            a, b, p = (torch.where(inside, new, old) for new, old in zip(after, state, strict=True))
            after = (a, b, p)
        outputs.append(y)
        state = after
    return torch.stack(outputs, 1), state


def wkv4(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: State, lengths: Tensor | None, out: Tensor | None
) -> tuple[Tensor, State]:
    """The loop in float64: in float32 the sum of many small decays drifts once |p| is large."""
    a, b, p = (part.double() for part in state)
    y, state = loop(w.double(), u.double(), k.double(), v.double(), (a, b, p), lengths)
    a, b, p = (part.to(k.dtype) for part in state)
    y = y.to(v.dtype)
    return y if out is None else out.copy_(y), (a, b, p)
