"""RWKV-7's recurrence on a GPU, forward alone, token by token (arXiv:2503.14456, sec. 4)."""

# Kernels have no types but those that Triton finds:
# mypy: allow-untyped-defs, disable-error-code="assignment"

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from rwkv_core.wkv import triton_matrix_state
from rwkv_core.wkv.triton_matrix_state import load, place


@triton.jit(do_not_specialize=["tokens", "heads"])
def wkv7_walk(
    r, w, k, a, b, v, state, lengths, y, final, tokens, heads, size,
    SIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """y [B, T, H, N] and the final state [B, H, N, N]."""
    _, keys, is_key, values, is_value, entries, origin, length = place(
        tl.program_id(0), tokens, heads, size, lengths, SIZE, BLOCK
    )
    stride = heads.to(tl.int64) * size
    is_entry = is_key[:, None] & is_value[None, :]
    s = tl.load(state + entries, mask=is_entry, other=0.0)
    r_next = load(r, origin, 0, length, stride, keys, is_key)
    w_next = load(w, origin, 0, length, stride, keys, is_key)
    k_next = load(k, origin, 0, length, stride, keys, is_key)
    a_next = load(a, origin, 0, length, stride, keys, is_key)
    b_next = load(b, origin, 0, length, stride, keys, is_key)
    v_next = load(v, origin, 0, length, stride, values, is_value)
    for t in range(tokens):
        query, decay, key, value = r_next, tl.exp(w_next), k_next, v_next
        remove, replace = a_next, b_next
        r_next = load(r, origin, t + 1, length, stride, keys, is_key)
        w_next = load(w, origin, t + 1, length, stride, keys, is_key)
        k_next = load(k, origin, t + 1, length, stride, keys, is_key)
        a_next = load(a, origin, t + 1, length, stride, keys, is_key)
        b_next = load(b, origin, t + 1, length, stride, keys, is_key)
        v_next = load(v, origin, t + 1, length, stride, values, is_value)
        removed = tl.sum(remove[:, None] * s, 0)
        s = decay[:, None] * s + replace[:, None] * removed[None, :] + key[:, None] * value[None, :]
        tl.store(y + origin + t * stride + values, tl.sum(query[:, None] * s, 0), mask=is_value)
    tl.store(final + entries, s, mask=is_entry)


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
    return triton_matrix_state.run(wkv7_walk, [], [r, w, k, a, b, v], state, lengths, out)
