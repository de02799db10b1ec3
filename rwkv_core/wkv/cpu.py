"""WKV on the CPU in C (cpu.c), compiled when the package is installed; absent where it could not be."""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
from pathlib import Path

import torch
from torch import Tensor

from rwkv_core.wkv.reference import State

Saved = tuple[Tensor | None, Tensor | None]  # the state entering each span [3, B, N, C]; p at the end [B, C]


_POINTERS = ("w", "u", "k", "v", "lengths", "carries", "a", "b", "p", "y", "end", "dy", "dk", "dv", "start", "dw", "du")


class _Call(ctypes.Structure):
    """`Call` of cpu.c."""

    _fields_ = [(name, ctypes.c_int64) for name in ("batch", "tokens", "channels", "threads")] + [
        (name, ctypes.c_void_p) for name in ("parallel", *_POINTERS)
    ]


@functools.cache
def _library() -> ctypes.CDLL | None:
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_cpu{suffix}")
        if path.is_file():
            library = ctypes.CDLL(str(path))
            library.wkv4_span.restype = ctypes.c_int64
            return library if library.wkv4_runs_here() else None
    return None


@functools.cache
def _parallel() -> int | None:
    """torch's own OpenMP, where it is GNU's: its threads are already awake, and a second pool would fight them."""
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p).value
    except AttributeError:
        return None


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
    """Call the library with `tensors` in the order of _POINTERS; what is missing is NULL."""
    pointers = [None if t is None else t.data_ptr() for t in tensors]
    if _loaded().wkv4(ctypes.byref(_Call(*like.shape, torch.get_num_threads(), _parallel(), *pointers))):
        raise MemoryError("the C kernel of WKV found no memory for its scratch")
