"""RWKV-6's recurrence on a GPU, forward alone, token by token (arXiv:2404.05892, sec. 4)."""

# Kernels have no types but those that Triton finds:
# mypy: allow-untyped-defs, disable-error-code="assignment"

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from rwkv_core.wkv import triton_matrix_state
from rwkv_core.wkv.triton_matrix_state import load, place


@triton.jit(do_not_specialize=["tokens", "heads"])
def wkv6_walk(
    u, r, w, k, v, state, lengths, y, final, tokens, heads, size,
    SIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """y [B, T, H, N] and the final state [B, H, N, N]."""
    head, keys, is_key, values, is_value, entries, origin, length = place(
        tl.program_id(0), tokens, heads, size, lengths, SIZE, BLOCK
    )
    stride = heads.to(tl.int64) * size
    is_entry = is_key[:, None] & is_value[None, :]
    s = tl.load(state + entries, mask=is_entry, other=0.0)
    bonus = tl.load(u + head * size + keys, mask=is_key, other=0.0)
    r_next = load(r, origin, 0, length, stride, keys, is_key)
    w_next = load(w, origin, 0, length, stride, keys, is_key)
    k_next = load(k, origin, 0, length, stride, keys, is_key)
    v_next = load(v, origin, 0, length, stride, values, is_value)
    for t in range(tokens):
        query, decay, key, value = r_next, tl.exp(w_next), k_next, v_next
        r_next = load(r, origin, t + 1, length, stride, keys, is_key)
        w_next = load(w, origin, t + 1, length, stride, keys, is_key)
        k_next = load(k, origin, t + 1, length, stride, keys, is_key)
        v_next = load(v, origin, t + 1, length, stride, values, is_value)
        result = tl.sum(query[:, None] * s, 0) + tl.sum(query * bonus * key, 0) * value
        tl.store(y + origin + t * stride + values, result, mask=is_value)
        s = decay[:, None] * s + key[:, None] * value[None, :]
    tl.store(final + entries, s, mask=is_entry)


def wkv6(
    u: Tensor, r: Tensor, w: Tensor, k: Tensor, v: Tensor, state: Tensor, lengths: Tensor | None, out: Tensor | None
) -> tuple[Tensor, Tensor]:
    """r, w, k, v [B, T, H, N] -> y [B, T, H, N] and the state after each row's length."""
    return triton_matrix_state.run(wkv6_walk, [u], [r, w, k, v], state, lengths, out)
