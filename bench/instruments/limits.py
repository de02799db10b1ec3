"""What the device can do at most: bytes read in a second, and operations of a large matrix product."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import torch

from rwkv_core.linear import linear

READ_BYTES = {"cpu": 256 << 20, "cuda": 1 << 30}  # beyond most caches
WIDTH = {"cpu": 4096, "cuda": 8192}  # of the matrix that is read
PRODUCT = {"cpu": 512, "cuda": 4096}  # of its two factors
TRIES = 5  # of which the best counts: a limit is what was reached once
ENOUGH_S = 1.0  # after which there is no other try: a processor without such arithmetic takes seconds


@functools.cache
def bandwidth(device: str) -> float:
    """Bytes that are read from memory in a second, by a matrix times a vector or by a sum, whichever reads faster."""
    rows = READ_BYTES[device] // 4 // WIDTH[device]
    matrix = torch.ones(rows, WIDTH[device], device=device)
    vector = torch.ones(1, WIDTH[device], device=device)
    with torch.inference_mode():
        best = min(_seconds(lambda: linear(vector, matrix), device), _seconds(matrix.sum, device))
    return matrix.nbytes / best


@functools.cache
def operations(device: str, dtype: torch.dtype) -> float:
    """Additions and multiplications in a second, of a product of two square matrices of that type: by torch or as the
    models here multiply, whichever is faster, since torch's is slow where a processor lacks the type's arithmetic.
    """
    size = PRODUCT[device]
    factor = torch.ones(size, size, device=device, dtype=dtype)
    with torch.inference_mode():
        best = min(_seconds(lambda: factor @ factor, device), _seconds(lambda: linear(factor, factor), device))
    return 2 * size**3 / best


def _seconds(call: Callable[[], object], device: str) -> float:
    """The best of a few calls, after one that warms up."""
    times: list[float] = []
    while len(times) <= TRIES and sum(times) < ENOUGH_S:
        started = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[1:] or times)
