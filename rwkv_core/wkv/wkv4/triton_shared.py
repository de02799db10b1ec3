"""What the Triton kernels of WKV share: sums with their exponents, rows of channels, and who works on what."""

# Kernels have no types but those that Triton finds:
# mypy: allow-untyped-defs, disable-error-code="assignment"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def exp(x):
    """e^x as a product and one instruction; below 2^-126 it is 0, which spares tl.exp's care for denormals."""
    return tl.exp2(x * 1.4426950408889634)


@triton.jit
def reciprocal(x):
    """1/x of a positive x to 2 ulp, as a division has it, in two instructions instead of eight."""
    root = tl.rsqrt(x)
    return root * root


@triton.jit
def shares(first, second):
    """e^(first - max) and e^(second - max) for one exponential: the larger one's is 1."""
    gap = first - second
    less = exp(-tl.abs(gap))
    return tl.where(gap >= 0, 1.0, less), tl.where(gap >= 0, less, 1.0)


@triton.jit
def advance(w, passed, exponent, x, z, a, b, top, age):
    """(a, b) e^(top + age w), decayed by e^w if a token has `passed`, plus (x, z) e^exponent; last, its exponent."""
    age += passed
    decayed = tl.fma(age, w, top)
    keep, add = shares(decayed, exponent)
    newer = exponent > decayed
    top = tl.where(newer, exponent, top)
    age = tl.where(newer, 0.0, age)
    return keep * a + add * x, keep * b + add * z, top, age, tl.maximum(decayed, exponent)


@triton.jit
def add_terms(a, b, p, xs, zs, exponents):
    """(a, b) e^p plus the sum of all (x, z) e^exponent, at the largest of the exponents."""
    largest = p
    for i in tl.static_range(len(exponents)):
        largest = tl.maximum(largest, exponents[i])
    keep = exp(p - largest)
    a *= keep
    b *= keep
    for i in tl.static_range(len(exponents)):
        weight = exp(exponents[i] - largest)
        a += weight * xs[i]
        b += weight * zs[i]
    return a, b, largest


@triton.jit
def load_rows(source, origin, row, end, stride, inside, other: tl.constexpr, ROWS: tl.constexpr):
    """Rows [row, row + ROWS) after the row `origin` (64 bits) as a tuple of [BLOCK] tensors, `other` from `end` on."""
    source += (origin + row) * stride
    rows = ()
    for i in tl.static_range(ROWS):
        rows += (tl.load(source + i * stride, mask=inside & (row + i < end), other=other),)
    return rows


@triton.jit
def store_state(target, part, a, b, p, inside):
    """a, b, p to target [3, ..], whose parts are `part` elements long."""
    tl.store(target, a, mask=inside)
    tl.store(target + part, b, mask=inside)
    tl.store(target + 2 * part, p, mask=inside)


@triton.jit
def place(index, skipped, tokens, channels, chunks, size, lengths, BLOCK: tl.constexpr):
    """Of program `index` of a launch over all chunks but the `skipped` first: batch row, chunk, channels and which of
    them exist; then the chunk's first token, the ends of its valid and of all its tokens, and the row's length.
    Neighbouring programs are neighbours in memory."""
    blocks = tl.cdiv(channels, BLOCK)
    columns = index % blocks * BLOCK + tl.arange(0, BLOCK)
    batch = index // blocks // chunks
    chunk = index // blocks % chunks + skipped
    length = tokens
    if lengths is not None:
        length = tl.load(lengths + batch).to(tl.int32)
    start = chunk * size
    stop = tl.minimum(start + size, tokens)
    end = tl.maximum(tl.minimum(length, stop), start)
    return batch.to(tl.int64), chunk, columns, columns < channels, start, end, stop, length


@triton.jit
def gather(a, b, p, w, sums, first, last, size, length, here, inside, channels, ROWS: tl.constexpr):
    """(a, b) e^p plus sums [first, last) of a row's [chunks, 3, C], each of which has its exponent at its far edge."""
    for chunk in range(first, last, ROWS):
        xs = ()
        zs = ()
        exponents = ()
        for i in tl.static_range(ROWS):
            at = sums + (chunk + i) * 3 * channels
            present = inside & (chunk + i < last)
            age = tl.abs(tl.minimum((chunk + i + 1) * size, length) - here) * 1.0
            xs += (tl.load(at, mask=present, other=0.0),)
            zs += (tl.load(at + channels, mask=present, other=0.0),)
            exponent = tl.load(at + 2 * channels, mask=present, other=-1e38)
            exponents += (tl.fma(age, w, exponent),)
        a, b, p = add_terms(a, b, p, xs, zs, exponents)
    return a, b, p
