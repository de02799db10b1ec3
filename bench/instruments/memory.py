"""Memory that generating takes beyond the weights: live tensors, resident growth, CUDA's allocator.

Resident memory is read as the high-water mark of /proc/self/status after resetting it, with large
blocks handed back to the system at once. ru_maxrss would not do (it survives exec), nor would
resident size minus parameters (it counts the libraries). Where the system has no such mark (gVisor has not), or
does not reset it, the growth is not measured, and the record says why.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from reports.records import provenance

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's mallopt
LARGE = 65536  # bytes; blocks from here on are mapped, and unmapped when freed
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
SLACK = 8 << 20  # bytes; the kernel counts resident pages a little late


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of storages made while it is active, from their making to their end."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._storages: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {t.untyped_storage()._cdata for t in tree_iter((args, kwargs)) if isinstance(t, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for t in tree_iter(out):
            if isinstance(t, torch.Tensor):
                storage = t.untyped_storage()
                if storage._cdata not in self._storages and storage._cdata not in before:
                    self._add(storage)
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._storages.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._storages.discard(key)
        self.live -= size


def working(device: str, call: Callable[[], object]) -> int:
    """Bytes that `call` takes at most beyond what was there before it: live tensors, on CUDA by its allocator."""
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated() - before
    with LiveTensors() as tracker:
        call()
    return tracker.peak


class Peak:
    """Peaks of an untimed run. Only what happens inside `watch()` counts; what lives on between does too."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._tracker = LiveTensors()
        self._resident = 0
        self._why_unknown = ""  # of the resident growth
        self._cuda = 0
        self._peak = 0
        gc.collect()
        if device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            self._cuda_before = torch.cuda.memory_allocated()
        else:
            _keep_no_freed_memory()
        self._resident_before = self._status("VmRSS")

    @contextlib.contextmanager
    def tracking(self) -> Iterator[None]:
        """Around the whole run: every tensor made is known."""
        with self._tracker:
            yield

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Around the parts whose peaks count."""
        self._tracker.peak = self._tracker.live
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self._reset()
        yield
        self._peak = max(self._peak, self._tracker.peak)
        self._resident = max(self._resident, self._status("VmHWM"))
        if self.device == "cuda":
            self._cuda = max(self._cuda, torch.cuda.max_memory_allocated())

    def metrics(self) -> dict[str, int]:
        """peak_live_bytes, and for the device resident_growth_bytes, if known, or the allocator's and NVML's view."""
        values = {"peak_live_bytes": self._peak}
        if self.device == "cuda":
            values["cuda_peak_bytes"] = self._cuda - self._cuda_before
            values["cuda_reserved_bytes"] = torch.cuda.memory_reserved()
            if (used := _nvml_used()) is not None:
                values["nvml_process_bytes"] = used
        elif not self._why_unknown:
            values["resident_growth_bytes"] = max(0, self._resident - self._resident_before)
        return values

    def missing(self) -> dict[str, str]:
        """resident_growth_missing: why this system does not tell it; empty where it does."""
        if self.device == "cuda" or not self._why_unknown:
            return {}
        return {"resident_growth_missing": self._why_unknown}

    def _reset(self) -> None:
        """The high-water mark starts anew."""
        try:
            CLEAR_REFS.write_bytes(b"5")
        except OSError as error:
            self._why_unknown = f"{CLEAR_REFS}: {error.strerror}"
        if self._status("VmHWM") > self._status("VmRSS") + SLACK:
            self._why_unknown = self._why_unknown or f"{CLEAR_REFS} does not reset VmHWM"

    def _status(self, key: str) -> int:
        """Bytes of a line of /proc/self/status; 0 where there is none, which makes the growth unknown."""
        try:
            return _status_bytes(key)
        except (OSError, ValueError, IndexError) as error:
            self._why_unknown = f"{STATUS}: {getattr(error, 'strerror', None) or f'{key} is missing'}"
            return 0


def _keep_no_freed_memory() -> None:
    with contextlib.suppress(AttributeError, OSError):  # not glibc: the growth is an upper bound
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGE)
        libc.mallopt(M_TRIM_THRESHOLD, LARGE)
    return_freed_memory()


def return_freed_memory() -> None:
    """To the system, where malloc is glibc's: what is allocated next costs as much as in a fresh process."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _status_bytes(key: str) -> int:
    for line in STATUS.read_bytes().splitlines():
        if line.startswith(f"{key}:".encode()):
            return int(line.split()[1]) * 1024
    raise ValueError(key)


def gpu_handle(nvml: Any) -> Any:
    """NVML's handle of the GPU that torch uses, whatever its number here and there. Raises NVMLError."""
    return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties().uuid}")


def _nvml_used() -> int | None:
    """Bytes that this process holds on the GPU, context included; None where the driver does not tell."""
    nvml = provenance.nvml()
    if nvml is None:
        return None
    try:
        processes = nvml.nvmlDeviceGetComputeRunningProcesses(gpu_handle(nvml))
    except nvml.NVMLError:
        return None
    return next((p.usedGpuMemory for p in processes if p.pid == os.getpid()), None)
