"""What this machine gives to the process: the CPUs and the memory that it may use, not those that are built in."""

from __future__ import annotations

import contextlib
import math
import os
import resource
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def cores() -> int:
    """CPUs that the process can keep busy at once: those of its affinity, and no more than its container's quota.

    A part of a CPU does not count, since a thread on it would wait for its next period; at least 1.
    """
    allowed, quota = len(affinity()), cpu_quota()
    return allowed if quota is None else max(1, min(allowed, math.floor(quota)))


def affinity() -> set[int]:
    """The numbers of the CPUs that the process may run on; of all where the system has no affinity, as macOS."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def cpu_quota() -> float | None:
    """How many CPUs' time the control groups allow, as a container's `--cpus` sets it; None without a limit."""
    quotas = []
    for folder in _groups("cpu"):
        words = _read(folder / "cpu.max").split()  # version 2: microseconds in a period, or "max", and the period
        if not words:
            words = [_read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
        quota, period = map(_number, words) if len(words) == 2 else (None, None)
        if quota is not None and period:
            quotas.append(quota / period)
    return min(quotas, default=None)


def total_memory() -> int | None:
    """Bytes that the process may use at most: the machine's, or fewer where a container or `ulimit` says so; None where
    the system does not tell.
    """
    return min((limit for limit, _ in _limits()), default=None)


def free_memory() -> int | None:
    """Bytes that the process may still take, what the system keeps in memory of files counted as free; None where the
    system does not tell.
    """
    return min((max(0, limit - used) for limit, used in _limits()), default=None)


def _limits() -> Iterator[tuple[int, int]]:
    """Each limit on the process's memory, the machine's first, beside what is used of it, bytes."""
    with contextlib.suppress(OSError, RuntimeError):  # no /proc/meminfo, or one without the usual lines
        memory = psutil.virtual_memory()
        yield memory.total, memory.total - memory.available
    for folder in _groups("memory"):
        for limit_name, used_name, cache_name in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit = _number(_read(folder / limit_name))
            if limit is not None:
                fields = dict(line.rpartition(" ")[::2] for line in _read(folder / "memory.stat").splitlines())
                cached = _number(fields.get(cache_name, ""))
                yield limit, (_number(_read(folder / used_name)) or 0) - (cached or 0)
    address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if address_space != resource.RLIM_INFINITY:
        with contextlib.suppress(OSError, psutil.Error):  # no /proc
            yield address_space, psutil.Process().memory_info().vms


def _groups(controller: str) -> Iterator[Path]:
    """The folders of the control group that the process is in and of those above it, in both versions."""
    for line in _read(MEMBERSHIP).splitlines():
        if line.count(":") < 2:
            continue
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            mounts = (CGROUPS / controllers, CGROUPS / controller)
        elif not controllers:
            mounts = (CGROUPS, CGROUPS / "unified")
        else:
            continue
        mount = next((folder for folder in mounts if folder.is_dir()), CGROUPS)
        place = PurePosixPath(path.lstrip("/"))
        yield from (mount / part for part in (place, *place.parents))


def _read(path: Path) -> str:
    """The file's text; empty where there is none or it may not be read."""
    try:
        return os.fsdecode(path.read_bytes()).strip()  # the name of a control group may be anything
    except OSError:
        return ""


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None
