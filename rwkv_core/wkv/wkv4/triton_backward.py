"""WKV on a GPU: Triton kernels for the backward pass, laid out as the forward pass is (see `triton_forward`).

With G = dL/dA and H = dL/dB of the sums before token t, G' and H' of those after it, the denominator of eq. 16
d = B + e^(u + k), and g = dy / d, all at token t:

    G = g + e^w G'         dv = e^(u + k) g + e^k G'
    H = -g y + e^w H'      dk = e^(u + k) g (v - y) + e^k (G' v + H')
    du = sum over tokens of e^(u + k) g (v - y)        dw = sum over tokens of e^w (G' A + H' B)

G and H are kept as (g, h) e^s, with s a running maximum as the sums' p is: no exponent above is then positive.
A walk goes from the last INTERVAL tokens to the first. It goes forward through them, from the state that the
forward pass has saved, which gives y and g of each token and the sums before it; and then back. That makes five
passes over tensors in one launch. With chunks, a launch before it reads k, v and dy, three more, to sum up what
each chunk alone passes on to those before it.

Tokens beyond a row's end change nothing without a branch: their key is -inf, their value and dy are 0, and no
time passes.
"""

# Kernels have no types but those that Triton finds:
# mypy: allow-untyped-defs, disable-error-code="assignment"

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from rwkv_core.wkv.wkv4 import triton_forward
from rwkv_core.wkv.wkv4.triton_forward import Saved, chunk_length, constant_width
from rwkv_core.wkv.wkv4.triton_shared import (
    add_terms,
    advance,
    exp,
    gather,
    load_rows,
    place,
    reciprocal,
    shares,
    store_state,
)

BACKWARD_FILL = (3, 12)  # as FORWARD_FILL: five passes over tensors, not eight, but more arithmetic in a walk


@triton.jit
def load_tokens(k, v, dy, carries, part, origin, row, end, stride, inside, ROWS: tl.constexpr):
    """ROWS tokens from `row`, a multiple of ROWS: keys, values, slopes dy, and the saved (a, b, p) before the first."""
    keys = load_rows(k, origin, row, end, stride, inside, -float("inf"), ROWS)
    values = load_rows(v, origin, row, end, stride, inside, 0.0, ROWS)
    slopes = load_rows(dy, origin, row, end, stride, inside, 0.0, ROWS)
    carries += row // ROWS * stride
    a = tl.load(carries, mask=inside, other=0.0)
    b = tl.load(carries + part, mask=inside, other=0.0)
    p = tl.load(carries + 2 * part, mask=inside, other=-1e38)
    return keys, values, slopes, (a, b, p)


@triton.jit
def passed(token, end):
    """The time that a token takes: 1, or 0 beyond the row's end."""
    return tl.where(token < end, 1.0, 0.0)


@triton.jit
def add_exactly(total, lost, part):
    """total + part and what that sum has lost to rounding, with what earlier ones have: thousands of tokens add up."""
    part -= lost
    after = total + part
    return after, (after - total) - part


@triton.jit
def retrace(w, u, loaded, row, end, ROWS: tl.constexpr):
    """Loaded tokens from the first to the last. Of each: (a, b, p) before it, v - y, g e^q, e^(u + k) g, and the
    exponent q of the denominator; then p after them all."""
    keys, values, slopes, state = loaded
    a, b, top = state
    p = top
    age = tl.zeros_like(p)
    traced = ()
    for i in tl.static_range(ROWS):
        current = u + keys[i].to(tl.float32)
        value = values[i].to(tl.float32)
        past, now = shares(p, current)
        # An empty row's state has nothing to divide by.
        over = reciprocal(tl.maximum(past * b + now, 1e-37))
        scaled = slopes[i].to(tl.float32) * over
        missing = past * over * (b * value - a)  # v - y, which may be far smaller than either
        traced += ((a, b, p, missing, scaled, now * scaled, tl.maximum(p, current)),)
        a, b, top, age, p = advance(w, passed(row + i, end), keys[i].to(tl.float32), value, 1.0, a, b, top, age)
    return traced, p


@triton.jit(do_not_specialize=["batches", "tokens", "channels", "chunks", "size"])
def sum_chunk_gradients(
    w, u, k, v, dy, da, db, lengths, carries, sums, batches, tokens, channels, chunks, size,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """sums [B, chunks, 3, C]: the g, h, s that every chunk but the first passes on, from nothing after it."""
    if WIDTH:
        channels = WIDTH
    batch, chunk, columns, inside, start, end, _, _ = place(
        tl.program_id(0), 1, tokens, channels, chunks, size, lengths, BLOCK
    )
    decay = tl.load(w + columns, mask=inside, other=0.0)
    bonus = tl.load(u + columns, mask=inside, other=0.0)
    origin = batch * tokens
    k += columns
    v += columns
    dy += columns
    intervals = tl.cdiv(tokens, ROWS).to(tl.int64)
    part = batches * intervals * channels
    carries += batch * intervals * channels + columns

    g = tl.zeros([BLOCK], tl.float32)
    h = tl.zeros([BLOCK], tl.float32)
    s = tl.full([BLOCK], -1e38, tl.float32)
    loaded = load_tokens(k, v, dy, carries, part, origin, start, end, channels, inside, ROWS)
    final = loaded[3][2]
    for row in range(start, end, ROWS):
        # After the last tokens, they are read again: their state exists.
        following = tl.where(row + ROWS < end, row + ROWS, row)
        next_loaded = load_tokens(k, v, dy, carries, part, origin, following, end, channels, inside, ROWS)
        traced, final = retrace(decay, bonus, loaded, row, end, ROWS)
        xs = ()
        zs = ()
        exponents = ()
        for i in tl.static_range(ROWS):
            scaled = traced[i][4]
            xs += (scaled,)
            zs += ((traced[i][3] - loaded[1][i].to(tl.float32)) * scaled,)
            exponents += (tl.fma((row + i - start) * 1.0, decay, -traced[i][6]),)
        g, h, s = add_terms(g, h, s, xs, zs, exponents)
        loaded = next_loaded
    if chunk == chunks:
        offsets = batch * channels + columns
        exponent = tl.fma((end - start) * 1.0, decay, -final)
        keep, add = shares(s, exponent)
        g = keep * g + add * tl.load(da + offsets, mask=inside, other=0.0)
        h = keep * h + add * tl.load(db + offsets, mask=inside, other=0.0)
        s = tl.maximum(s, exponent)
    store_state(sums + (batch * chunks + chunk - 1) * 3 * channels + columns, channels, g, h, s, inside)


@triton.jit
def retreat(w, loaded, traced, g, h, top, age, dk, dv, origin, row, end, stop, stride, inside, ROWS: tl.constexpr):
    """The tokens from the last to the first: writes dk and dv, returns g, h, their exponent, and these tokens' part of
    dw and du."""
    dk += (origin + row) * stride
    dv += (origin + row) * stride
    s = tl.fma(age, w, top)
    dw = tl.zeros_like(g)
    du = tl.zeros_like(g)
    for i in tl.static_range(ROWS - 1, -1, -1):
        a, b, p, missing, scaled, direct, q = traced[i]
        key = loaded[0][i].to(tl.float32)
        value = loaded[1][i].to(tl.float32)
        time = passed(row + i, end)
        present = inside & (row + i < stop)
        weight = exp(key + s)
        bonus_slope = direct * missing
        tl.store(dk + i * stride, weight * (g * value + h) + bonus_slope, mask=present)
        tl.store(dv + i * stride, weight * g + direct, mask=present)
        du += bonus_slope
        dw += time * exp(tl.fma(age + time, w, top) + p) * (g * a + h * b)
        g, h, top, age, s = advance(w, time, -q, scaled, (missing - value) * scaled, g, h, top, age)
    return g, h, top, age, dw, du


@triton.jit(do_not_specialize=["batches", "tokens", "channels", "chunks", "size"])
def walk_back(
    w, u, k, v, dy, da, db, lengths, carries, sums, dk, dv, initial, partial, batches, tokens, channels, chunks, size,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """dk, dv [B, T, C], those of the initial a and b [2, B, C], and this chunk's part of dw and du [B, chunks, 2, C].

    The last chunks go first: `sum_chunk_gradients` has just read them.
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
    dy += columns
    dk += columns
    dv += columns
    intervals = tl.cdiv(tokens, ROWS).to(tl.int64)
    part = batches * intervals * channels
    carries += batch * intervals * channels + columns
    blocks = tl.maximum(tl.cdiv(end - start, ROWS), 1)
    row = start + (blocks - 1) * ROWS
    loaded = load_tokens(k, v, dy, carries, part, origin, row, end, channels, inside, ROWS)

    final_a = tl.load(da + offsets, mask=inside, other=0.0)
    final_b = tl.load(db + offsets, mask=inside, other=0.0)
    g = tl.zeros([BLOCK], tl.float32)
    h = tl.zeros([BLOCK], tl.float32)
    top = tl.full([BLOCK], -1e38, tl.float32)
    if sums is not None:
        here = tl.minimum(stop, length)
        sums += batch * (chunks - 1) * 3 * channels + columns
        g, h, top = gather(g, h, top, decay, sums, chunk, chunks - 1, size, length, here, inside, channels, ROWS)
    age = tl.zeros([BLOCK], tl.float32)
    dw = tl.zeros([BLOCK], tl.float32)
    du = tl.zeros([BLOCK], tl.float32)
    lost_w = tl.zeros([BLOCK], tl.float32)
    lost_u = tl.zeros([BLOCK], tl.float32)
    for block in range(blocks):
        row = start + (blocks - 1 - block) * ROWS
        previous = tl.maximum(row - ROWS, start)
        next_loaded = load_tokens(k, v, dy, carries, part, origin, previous, end, channels, inside, ROWS)
        traced, final = retrace(decay, bonus, loaded, row, end, ROWS)
        at_end = (block == 0) & (chunk == chunks - 1)
        g = tl.where(at_end, final_a, g)
        h = tl.where(at_end, final_b, h)
        top = tl.where(at_end, -final, top)
        g, h, top, age, more_w, more_u = retreat(
            decay, loaded, traced, g, h, top, age, dk, dv, origin, row, end, stop, channels, inside, ROWS
        )
        dw, lost_w = add_exactly(dw, lost_w, more_w)
        du, lost_u = add_exactly(du, lost_u, more_u)
        loaded = next_loaded
    for beyond in range(start + blocks * ROWS, stop):
        nothing = tl.zeros([BLOCK], tl.float32)
        tl.store(dk + (origin + beyond) * channels, nothing, mask=inside)
        tl.store(dv + (origin + beyond) * channels, nothing, mask=inside)

    partial += (batch * chunks + chunk) * 2 * channels + columns
    tl.store(partial, dw, mask=inside)
    tl.store(partial + channels, du, mask=inside)
    if chunk == 0:
        scale = exp(tl.fma(age, decay, top) + tl.load(carries + 2 * part, mask=inside, other=-1e38))
        tl.store(initial + offsets, scale * g, mask=inside)
        tl.store(initial + batches * channels + offsets, scale * h, mask=inside)


def backward(
    w: Tensor,
    u: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor | None,
    saved: Saved,
    dy: Tensor,
    dstate: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of w, u [C], k, v [B, T, C] and the initial a, b [B, C] from those of y and of the final a, b [B, C].

    A state's gradients are those of the sums it stands for, a e^p and b e^p, at a fixed p.
    """
    batch, tokens, channels = k.shape
    size = chunk_length(batch, tokens, channels, k.device, BACKWARD_FILL)
    chunks = math.ceil(tokens / size)
    walks = batch * math.ceil(channels / triton_forward.BLOCK)
    width = constant_width(channels)
    dk, dv = torch.empty_like(k), torch.empty_like(v)
    initial = w.new_empty(2, batch, channels)
    partial = w.new_empty(batch * chunks, 2, channels)
    sums = w.new_empty(batch, chunks - 1, 3, channels) if chunks > 1 else None
    with torch.cuda.device_of(k):
        if sums is not None:
            sum_chunk_gradients[(walks * (chunks - 1),)](
                w, u, k, v, dy, *dstate, lengths, saved.carries, sums, batch, tokens, channels, chunks - 1, size,
                width, triton_forward.BLOCK, saved.interval, num_warps=1, num_stages=1,
            )  # fmt: skip
        walk_back[(walks * chunks,)](
            w, u, k, v, dy, *dstate, lengths, saved.carries, sums, dk, dv, initial, partial,
            batch, tokens, channels, chunks, size,
            width, triton_forward.BLOCK, saved.interval, num_warps=1, num_stages=1,
        )  # fmt: skip
    dw, du = partial.sum(0).unbind()
    da, db = initial.unbind()
    return dw, du, dk, dv, da, db
