"""WKV in plain torch with about 2*sqrt(T) sequential steps instead of T.

The sequence is cut into N chunks of L tokens. All chunks are scanned from an empty state at the
same time (L steps), the chunks' sums are carried from one to the next (N steps), and the two parts
are joined with the current token. Every exponent is taken relative to its largest, as in the oracle.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from rwkv_core.wkv.wkv4.reference import State, initial_state, step

PIECE = 1 << 19  # elements of k scanned at once on a CPU: what is held meanwhile should stay in its caches


def wkv4(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: State, lengths: Tensor | None, out: Tensor | None
) -> tuple[Tensor, State]:
    """k, v [B, T, C] -> y [B, T, C] and the state after each row's length, long inputs piece by piece."""
    tokens = k.shape[1]
    step = tokens if k.device.type != "cpu" else max(16, PIECE * tokens // k.numel())
    parts = []
    for start in range(0, tokens, step):
        remaining = None if lengths is None else (lengths - start).clamp(min=0)
        y, state = _scan(w, u, k[:, start : start + step], v[:, start : start + step], state, remaining)
        parts.append(y)
    return torch.cat(parts, 1, out=out), state


def _scan(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: State, lengths: Tensor | None) -> tuple[Tensor, State]:
    batch, tokens, channels = k.shape
    if tokens == 1 and lengths is None:
        y, state = step(w, u, k[:, 0], v[:, 0], state)
        return y[:, None], state

    size = 2 ** math.ceil(math.log2(tokens) / 2)
    chunks = math.ceil(tokens / size)
    padding = chunks * size - tokens
    if padding and lengths is None:
        lengths = torch.full((batch,), tokens, device=k.device)
    k, v = (F.pad(x, (0, 0, 0, padding)).view(batch, chunks, size, channels) for x in (k, v))
    starts = torch.arange(chunks, device=k.device) * size
    filled = None if lengths is None else (lengths[:, None] - starts).clamp(0, size)  # [B, N]

    before, total = _scan_chunks(w, k, v, filled)
    carry, state = _carry(w, total, state, filled, size)
    y = _join(w, u, k, v, before, carry)
    return y.view(batch, chunks * size, channels)[:, :tokens], state


def _combine(first: State, second: State) -> State:
    """The sum of two partial sums, at the larger of their exponents."""
    p = torch.maximum(first[2], second[2])
    left, right = torch.exp(first[2] - p), torch.exp(second[2] - p)
    return left * first[0] + right * second[0], left * first[1] + right * second[1], p


def _scan_chunks(w: Tensor, k: Tensor, v: Tensor, filled: Tensor | None) -> tuple[list[State], State]:
    """Each chunk alone: its sums [B, N, C] before every token, and after its last one."""
    batch, chunks, size, channels = k.shape
    a, b, p = (x.view(batch, chunks, channels) for x in initial_state(batch * chunks, channels, k.device, k.dtype))
    one = torch.ones_like(a)
    before = []
    for position in range(size):
        before.append((a, b, p))
        after = _combine((a, b, p + w), (v[:, :, position], one, k[:, :, position]))
        if filled is not None:
            inside = (position < filled)[..., None]
            a, b, p = (torch.where(inside, new, old) for new, old in zip(after, (a, b, p), strict=True))
        else:
            a, b, p = after
    return before, (a, b, p)


def _carry(w: Tensor, total: State, state: State, filled: Tensor | None, size: int) -> tuple[State, State]:
    """The sums that enter each chunk from all earlier ones [B, N, C], and the final state [B, C]."""
    entering = []
    for chunk in range(total[0].shape[1]):
        entering.append(state)
        decay = w * size if filled is None else w * filled[:, chunk, None]
        a, b, p = state
        state = _combine((a, b, p + decay), (total[0][:, chunk], total[1][:, chunk], total[2][:, chunk]))
    a, b, p = (torch.stack(parts, 1) for parts in zip(*entering, strict=True))
    return (a, b, p), state


def _join(w: Tensor, u: Tensor, k: Tensor, v: Tensor, before: list[State], carry: State) -> Tensor:
    """What came before the chunk, what came before the token within it, and the token itself."""
    a, b, p = (torch.stack(parts, 2) for parts in zip(*before, strict=True))
    offset = torch.arange(k.shape[2], device=k.device, dtype=k.dtype)[:, None]
    carry_a, carry_b, carry_p = (x[:, :, None] for x in carry)
    carry_p = carry_p + offset * w
    current = u + k
    q = torch.maximum(torch.maximum(p, carry_p), current)
    inside, outside, now = torch.exp(p - q), torch.exp(carry_p - q), torch.exp(current - q)
    return (inside * a + outside * carry_a + now * v) / (inside * b + outside * carry_b + now)
