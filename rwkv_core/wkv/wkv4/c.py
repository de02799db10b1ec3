"""WKV on the CPU in C (wkv4.c), compiled when the package is installed; absent where it could not be."""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import struct
from pathlib import Path

import torch
from torch import Tensor

from rwkv_core.wkv.wkv4.reference import State

Saved = tuple[Tensor | None, Tensor | None]  # the state entering each span [3, B, N, C]; p at the end [B, C]


POINTERS = 17  # to tensors, in `Call` of wkv4.c; all its fields have eight bytes
_CALL = struct.Struct(f"@5q{POINTERS}q")


@functools.cache
def _library() -> ctypes.CDLL | None:
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_c{suffix}")
        if path.is_file():
            library = ctypes.CDLL(str(path))
            library.wkv4_span.restype = ctypes.c_int64
            return library if library.wkv4_runs_here() else None
    return None


@functools.cache
def _parallel() -> int:
    """Address of torch's own OpenMP, where it is GNU's: its threads are awake already, and others would fight them."""
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p).value or 0
    except AttributeError:
        return 0


def lacks(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why this kernel cannot serve tensors of that device and type; None where it can."""
    if device.type != "cpu":
        return f"it runs on the CPU, not on {device.type}"
    if dtype == torch.float64:
        return "it computes in float32"
    if _library() is None:
        return "it is not compiled for this processor; install the package where a C compiler is"
    return None


def forward(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: State, lengths: Tensor | None, y: Tensor, save: bool
) -> tuple[State, Saved]:
    """Fill y [B, T, C]; returns the final state and, with `save`, what backward needs.

    All contiguous on the CPU, float32: w, u [C], k, v [B, T, C], state three [B, C]; lengths int64 [B].
    """
    batch, tokens, channels = k.shape
    carries = None
    if save:
        carries = k.new_empty(3, batch, -(-tokens // _loaded().wkv4_span()), channels)
    end = k.new_empty(3, batch, channels)
    _run(k, w, u, k, v, lengths, carries, *state, y, end)
    a, b, p_end = end.unbind()
    return (a, b, p_end), (carries, p_end.clone() if save else None)


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
    """Gradients of w, u [C], k, v [B, T, C] and the initial a, b [B, C] from those of y and the final a, b."""
    batch, _, channels = k.shape
    carries, end_p = saved
    dk, dv = torch.empty_like(k), torch.empty_like(v)
    start = k.new_empty(2, batch, channels)
    dw, du = k.new_empty(2, batch, channels, dtype=torch.float64)
    _run(k, w, u, k, v, lengths, carries, *dstate, end_p, None, None, dy, dk, dv, start, dw, du)
    return dw.sum(0).float(), du.sum(0).float(), dk, dv, start[0], start[1]


def _loaded() -> ctypes.CDLL:
    library = _library()
    if library is None:
        raise RuntimeError("the C kernel of WKV is not compiled here")
    return library


def _run(like: Tensor, *tensors: Tensor | None) -> None:
    """Call the library with `tensors` in the order of wkv4.c's `Call`, from `w` on; None and the rest are NULL."""
    pointers = [0 if t is None else t.data_ptr() for t in tensors]
    call = _CALL.pack(*like.shape, torch.get_num_threads(), _parallel(), *pointers, *[0] * (POINTERS - len(pointers)))
    if _loaded().wkv4(call):
        raise MemoryError("the C kernel of WKV found no memory for its scratch")
