"""WKV on a GPU: Triton kernels for the forward pass (arXiv:2305.13048, eqs. 16-21 of App. D).

One program is one warp with a channel a thread. It walks along time with the state in registers, while the next
ROWS rows of k and v are already on their way: threads exchange nothing, a row of channels is read in one piece,
and the bytes in flight hide the memory's latency.

With enough rows and channels to fill the device the whole sequence is one walk: one launch that reads k and v and
writes y once. Otherwise it is cut into chunks, in two launches: the sums of every chunk alone, then all chunks'
walks at once, each from the state that it gathers from the chunks before it.

A sum A = a e^p has its exponent p = top + age*w, where `top` is the key that was the largest and `age` the tokens
since then: rounded once, where adding w to p a token at a time would round the same way every time.
"""

# Kernels have no types but those that Triton finds:
# mypy: allow-untyped-defs, disable-error-code="assignment"

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from rwkv_core.wkv.wkv4.reference import State
from rwkv_core.wkv.wkv4.triton_shared import add_terms, advance, exp, gather, load_rows, place, reciprocal, store_state

BLOCK = 32  # channels of a program: one warp
ROWS = 16  # tokens that the forward pass reads ahead: a multiple of INTERVAL
INTERVAL = 8  # tokens between two states that the backward pass restarts from, and chunks that a walk gathers at a time
MOST_CHUNKS = 128  # of a row: a walk gathers the states of all before it
FORWARD_FILL = (2, 12)  # walks a processor: enough for one launch, and how many to cut chunks for otherwise


class Saved(NamedTuple):
    """What the backward pass needs beyond the inputs: the state before every `interval`-th token."""

    carries: Tensor | None  # float32 [3, B, ceil(T / interval), C]: a, b, p
    interval: int  # tokens


@triton.jit(do_not_specialize=["tokens", "channels", "chunks", "size"])
def sum_chunks(
    w, k, v, lengths, sums, tokens, channels, chunks, size,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """sums [B, chunks, 3, C]: every chunk's a, b, p after its last valid token, from an empty state."""
    if WIDTH:
        channels = WIDTH
    batch, chunk, columns, inside, start, end, _, _ = place(
        tl.program_id(0), 0, tokens, channels, chunks, size, lengths, BLOCK
    )
    decay = tl.load(w + columns, mask=inside, other=0.0)
    origin = batch * tokens
    a = tl.zeros([BLOCK], tl.float32)
    b = tl.zeros([BLOCK], tl.float32)
    p = tl.full([BLOCK], -1e38, tl.float32)
    for row in range(start, end, ROWS):
        keys = load_rows(k + columns, origin, row, end, channels, inside, -float("inf"), ROWS)
        loaded = load_rows(v + columns, origin, row, end, channels, inside, 0.0, ROWS)
        values = ()
        ones = ()
        exponents = ()
        for i in tl.static_range(ROWS):
            age = (end - 1 - row - i) * 1.0
            values += (loaded[i].to(tl.float32),)
            ones += (1.0,)
            exponents += (tl.fma(age, decay, keys[i].to(tl.float32)),)
        a, b, p = add_terms(a, b, p, values, ones, exponents)
    store_state(sums + (batch * chunks + chunk) * 3 * channels + columns, channels, a, b, p, inside)


@triton.jit
def walk(
    w, u, keys, values, y, carries, part, a, b, top, age, origin, row, stride, inside,
    INTERVAL: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """ROWS tokens from `row`: writes y and, where they are due, states before a token; returns the state after them."""
    y += (origin + row) * stride
    p = tl.fma(age, w, top)
    for i in tl.static_range(ROWS):
        if carries is not None and i % INTERVAL == 0:
            due = inside & ((row + i) % INTERVAL == 0)
            store_state(carries + (row + i) // INTERVAL * stride, part, a, b, p, due)
        key = keys[i].to(tl.float32)
        value = values[i].to(tl.float32)
        # Beside a token that weighs e^60 times the past's unit, the past is nothing in float32.
        now = exp(tl.minimum(u + key - p, 60.0))
        tl.store(y + i * stride, (a + now * value) * reciprocal(b + now), mask=inside)
        a, b, top, age, p = advance(w, 1.0, key, value, 1.0, a, b, top, age)
    return a, b, top, age


@triton.jit(do_not_specialize=["batches", "tokens", "channels", "chunks", "size"])
def walk_chunks(
    w, u, k, v, a, b, p, lengths, sums, y, final, carries, batches, tokens, channels, chunks, size,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, INTERVAL: tl.constexpr,
):  # fmt: skip
    """y [B, T, C], the final state [3, B, C] and carries [3, B, ceil(T / INTERVAL), C] from sums [B, chunks - 1, 3, C].

    The last chunks go first: `sum_chunks` has just read their keys and values, so that the L2 cache still has them.
    """
    if WIDTH:
        channels = WIDTH
    batch, chunk, columns, inside, start, end, stop, length = place(
        tl.num_programs(0) - 1 - tl.program_id(0), 0, tokens, channels, chunks, size, lengths, BLOCK
    )
    decay = tl.load(w + columns, mask=inside, other=0.0)
    bonus = tl.load(u + columns, mask=inside, other=0.0)
    offsets = batch * channels + columns
    origin = batch * tokens
    k += columns
    v += columns
    y += columns
    keys = load_rows(k, origin, start, end, channels, inside, 0.0, ROWS)
    values = load_rows(v, origin, start, end, channels, inside, 0.0, ROWS)

    a = tl.load(a + offsets, mask=inside, other=0.0)
    b = tl.load(b + offsets, mask=inside, other=0.0)
    top = tl.load(p + offsets, mask=inside, other=-1e38)
    if sums is not None:
        here = tl.minimum(start, length)
        sums += batch * (chunks - 1) * 3 * channels + columns
        top = tl.fma(here * 1.0, decay, top)
        a, b, top = gather(a, b, top, decay, sums, 0, chunk, size, length, here, inside, channels, INTERVAL)
    age = tl.zeros([BLOCK], tl.float32)

    intervals = tl.cdiv(tokens, INTERVAL).to(tl.int64)
    part = batches * intervals * channels
    if carries is not None:
        carries += batch * intervals * channels + columns
    whole = start + (end - start) // ROWS * ROWS
    for row in range(start, whole, ROWS):
        next_keys = load_rows(k, origin, row + ROWS, end, channels, inside, 0.0, ROWS)
        next_values = load_rows(v, origin, row + ROWS, end, channels, inside, 0.0, ROWS)
        a, b, top, age = walk(
            decay, bonus, keys, values, y, carries, part, a, b, top, age,
            origin, row, channels, inside, INTERVAL, ROWS,
        )  # fmt: skip
        keys = next_keys
        values = next_values
    for row in range(whole, end):  # the rest, from the cache: the last reading ahead has brought it there
        key = load_rows(k, origin, row, end, channels, inside, 0.0, 1)
        value = load_rows(v, origin, row, end, channels, inside, 0.0, 1)
        a, b, top, age = walk(
            decay, bonus, key, value, y, carries, part, a, b, top, age, origin, row, channels, inside, INTERVAL, 1
        )
    for row in range(end, stop):
        tl.store(y + (origin + row) * channels, tl.zeros([BLOCK], tl.float32), mask=inside)

    p = tl.fma(age, decay, top)
    if carries is not None:
        for interval in range(tl.cdiv(end, INTERVAL), tl.cdiv(stop, INTERVAL)):
            store_state(carries + interval * channels, part, a, b, p, inside)
    if chunk == chunks - 1:
        store_state(final + offsets, batches * channels, a, b, p, inside)


@cache
def processors(device: torch.device) -> int:
    """Streaming multiprocessors of a device; an H200's where there is none to ask."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 132


def chunk_length(batch: int, tokens: int, channels: int, device: torch.device, fill: tuple[int, int]) -> int:
    """Tokens of a chunk; all of them for a single launch.

    It is as fast where enough walks keep the memory busy, for it makes three passes over tensors, not five, and
    where a walk takes no longer than another launch. Otherwise chunks make as many walks as hide their latency.
    """
    enough, target = fill
    walks = batch * math.ceil(channels / BLOCK)
    if tokens <= 256 or walks >= enough * processors(device):
        return tokens
    chunks = min(math.ceil(target * processors(device) / walks), MOST_CHUNKS)
    return math.ceil(tokens / chunks / (2 * ROWS)) * 2 * ROWS


def constant_width(channels: int) -> int:
    """The channels as a constant of the kernel, which saves a sixth of its instructions (row offsets); 0, for channels
    that it reads at run time, where they are not whole blocks as a model's are: odd widths are not worth a kernel each.
    """
    return 0 if channels % BLOCK else channels


def forward(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: State, lengths: Tensor | None, y: Tensor, save: bool
) -> tuple[State, Saved]:
    """Fills y [B, T, C], zero beyond a row's length; returns the state [B, C] after it, and with `save` the carries."""
    batch, tokens, channels = k.shape
    size = chunk_length(batch, tokens, channels, k.device, FORWARD_FILL)
    chunks = math.ceil(tokens / size)
    walks = batch * math.ceil(channels / BLOCK)
    width = constant_width(channels)
    final = w.new_empty(3, batch, channels)
    carries = w.new_empty(3, batch, math.ceil(tokens / INTERVAL), channels) if save else None
    sums = w.new_empty(batch, chunks - 1, 3, channels) if chunks > 1 else None
    with torch.cuda.device_of(k):
        if sums is not None:
            sum_chunks[(walks * (chunks - 1),)](
                w, k, v, lengths, sums, tokens, channels, chunks - 1, size,
                width, BLOCK, ROWS, num_warps=1, num_stages=1,
            )  # fmt: skip
        walk_chunks[(walks * chunks,)](
            w, u, k, v, *state, lengths, sums, y, final, carries, batch, tokens, channels, chunks, size,
            width, BLOCK, ROWS, INTERVAL, num_warps=1, num_stages=1,
        )  # fmt: skip
    a, b, p = final.unbind()
    return (a, b, p), Saved(carries, INTERVAL)
