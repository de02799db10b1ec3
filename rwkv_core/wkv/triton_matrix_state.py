"""What the Triton kernels share whose state is a matrix a head: a launch, and who works on what.

One program is one warp with some columns (values) of one head's matrix in its registers. It walks along time; the next
token's rows are on their way meanwhile. Columns exchange nothing; sums over keys stay within the warp.
"""

# Kernels have no types but those that Triton finds:
# mypy: allow-untyped-defs, disable-error-code="assignment"

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 8  # values of a program: with 16, the registers of the seven inputs and the state do not suffice


@triton.jit
def place(index, tokens, heads, size, lengths, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """Of program `index`: its head, keys and values and which of them exist, the offsets of its part of the states, of
    its first key in a sequence, and its row's length."""
    blocks = tl.cdiv(size, BLOCK)
    values = index % blocks * BLOCK + tl.arange(0, BLOCK)
    head = index // blocks % heads
    batch = (index // blocks // heads).to(tl.int64)
    keys = tl.arange(0, SIZE)
    length = tokens
    if lengths is not None:
        length = tl.load(lengths + batch).to(tl.int32)
    entries = (batch * heads + head) * size * size + keys[:, None] * size + values[None, :]
    return head, keys, keys < size, values, values < size, entries, (batch * tokens * heads + head) * size, length


@triton.jit
def load(source, origin, token, length, stride, columns, inside):
    """Columns of a token's row, 0 beyond the length: a log-decay of 0 and a key of 0 leave the state as it is."""
    return tl.load(source + origin + token * stride + columns, mask=inside & (token < length), other=0.0).to(tl.float32)


def run(
    kernel: Any,
    parameters: Sequence[Tensor],
    sequences: Sequence[Tensor],
    state: Tensor,
    lengths: Tensor | None,
    out: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """y [B, T, H, N], zero beyond a row's length and of the last sequence's type, and the state [B, H, N, N] after it.

    parameters [H, N], sequences [B, T, H, N]: in the order of the kernel's.
    """
    batch, tokens, heads, size = sequences[-1].shape
    y = torch.empty_like(sequences[-1], memory_format=torch.contiguous_format) if out is None else out
    final = torch.empty_like(state, memory_format=torch.contiguous_format)
    if lengths is not None:
        lengths = lengths.long().contiguous()
    with torch.cuda.device_of(y):
        kernel[(batch * heads * triton.cdiv(size, BLOCK),)](
            *(x.contiguous() for x in (*parameters, *sequences, state)), lengths, y, final, tokens, heads, size,
            triton.next_power_of_2(size), BLOCK, num_warps=1, num_stages=1,
        )  # fmt: skip
    return y, final
