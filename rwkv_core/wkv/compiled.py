"""A kernel in C (common.h), compiled when the package is installed; absent where it could not be."""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import struct
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor


class Library:
    """The library `_c` beside a module.

    module: its file.
    sizes, pointers: how many of them its `Call` has. In between stand the number of threads and the address of torch's
        OpenMP; all fields have eight bytes.
    """

    def __init__(self, module: str, sizes: int, pointers: int) -> None:
        self._module = Path(module)
        self._pointers = pointers
        self._call = struct.Struct(f"@{sizes + 2 + pointers}q")

    @functools.cached_property
    def loaded(self) -> ctypes.CDLL | None:
        """None where it is absent or this processor cannot run it."""
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            path = self._module.with_name(f"_c{suffix}")
            if path.is_file():
                library = ctypes.CDLL(str(path))
                return library if library.wkv_runs_here() else None
        return None

    def lacks(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why this kernel cannot serve tensors of that device and type; None where it can."""
        if device.type != "cpu":
            return f"it runs on the CPU, not on {device.type}"
        if dtype == torch.float64:
            return "it computes in float32"
        if self.loaded is None:
            return "it is not compiled for this processor; install the package where a C compiler is"
        return None

    def span(self) -> int:
        """Tokens between two states that forward stores for backward."""
        return self._present().wkv_span()

    def run(self, sizes: Sequence[int], *tensors: Tensor | None) -> None:
        """Call it with `tensors` in the order of its `Call`; None and those left out are NULL.

        Raises MemoryError where it finds no memory for its scratch.
        """
        pointers = [0 if t is None else t.data_ptr() for t in tensors]
        missing = [0] * (self._pointers - len(pointers))
        call = self._call.pack(*sizes, torch.get_num_threads(), parallel(), *pointers, *missing)
        if self._present().wkv_run(call):
            raise MemoryError(f"the C kernel beside {self._module} found no memory for its scratch")

    def _present(self) -> ctypes.CDLL:
        if self.loaded is None:
            raise RuntimeError(f"the C kernel beside {self._module} is not compiled here")
        return self.loaded


@functools.cache
def parallel() -> int:
    """Address of torch's own OpenMP, where it is GNU's: its threads are awake already, and others would fight them."""
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p).value or 0
    except AttributeError:
        return 0
