"""Recurrences as one first writes them, compiled by what a user of Python has: RWKV-4's by numba, all by torch.compile.

What else was tried of RWKV-4's on a CPU and is no contender: torch.jit.script takes two thirds of the plain loop's
time, with gradients more than all of it; torch.compile of a single token takes more, of torch's associative scan more
than of blocks, and of torch's scan it fails.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

BLOCK = 16  # tokens in one compiled function: 17 s, with gradients a minute; 32 take four times that and gain little

Function = Callable[..., Tensor]


def numba() -> Function | None:
    """Two loops on one thread, without gradients; None where numba is not installed."""
    if importlib.util.find_spec("numba") is None:
        return None
    scan = _with_numba()

    def run(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
        y = torch.empty(k.shape)
        scan(*(x.float().numpy() for x in (w, u, k, v)), y.numpy())
        return y

    return run


@functools.cache
def _with_numba() -> Callable[..., None]:
    from numba import njit

    compiled: Callable[..., None] = njit(_scan)  # by default without threads and with exact arithmetic
    return compiled


def _scan(w: Any, u: Any, k: Any, v: Any, y: Any) -> None:
    """Writes y [B, T, C]; arrays in float32."""
    rows, tokens, channels = k.shape
    for row in range(rows):
        a = np.zeros(channels, np.float32)
        b = np.zeros(channels, np.float32)
        p = np.full(channels, -1e38, np.float32)
        for t in range(tokens):
            for c in range(channels):
                key, value = k[row, t, c], v[row, t, c]
                q = max(p[c], u[c] + key)
                past, now = math.exp(p[c] - q), math.exp(u[c] + key - q)
                y[row, t, c] = (past * a[c] + now * value) / (past * b[c] + now)
                q = max(p[c] + w[c], key)
                past, now = math.exp(p[c] + w[c] - q), math.exp(key - q)
                a[c], b[c], p[c] = past * a[c] + now * value, past * b[c] + now, q


def torch_compile(loop: Callable[..., Any], empty: Callable[[Tensor], Any], sequences: int) -> Function | None:
    """A loop of torch in blocks of tokens, each one compiled function; None where nothing can be compiled.

    loop: an operator's inputs, of which the last `sequences` are [B, T, ..], a state and None -> y and the next state.
    empty: a sequence in float32 -> the state before it.
    """
    if not _compiles():
        return None
    torch.compiler.reset()  # functions of earlier cells count towards the most that torch compiles of one
    block = torch.compile(loop, fullgraph=True, dynamic=False)

    def run(*inputs: Tensor) -> Tensor:
        blocks = [x.float().split(BLOCK, 1) for x in inputs[-sequences:]]
        state, parts = empty(blocks[-1][0]), []
        for tokens in zip(*blocks, strict=True):
            y, state = block(*inputs[:-sequences], *tokens, state, None)
            parts.append(y)
        return torch.cat(parts, 1)

    return run


@functools.cache
def _compiles() -> bool:
    """Whether torch.compile works here: on a CPU it needs a C++ compiler and Python's headers."""
    from torch._dynamo.exc import BackendCompilerFailed

    try:
        torch.compile(torch.neg)(torch.ones(2))
    except BackendCompilerFailed:
        return False
    return True
