"""On what a number was measured: the code, the libraries, the machine."""

from __future__ import annotations

import datetime
import functools
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from rwkv_core import machine

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = (
    "torch",
    "transformers",
    "triton",
    "tokenizers",
    "lm_eval",
    "numpy",
    "numba",
    "rwkv",
    "flash-linear-attention",
)


def collect(accelerator: str | None, **more: Any) -> dict[str, Any]:
    """Everything a reader needs to judge or repeat a number; `more` comes from who measured it.

    accelerator: the name of the GPU that was used, None for the CPU. `machine` is what figures carry. Cores and memory
    are those that this process may use.
    """
    return {
        "measured_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine_name(accelerator),
        "cpu": cpu_name(),
        "cores": machine.cores(),
        "memory_bytes": machine.total_memory(),
        "gpus": gpus(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": versions(),
        **git(),
        **more,
    }


def machine_name(accelerator: str | None) -> str:
    """What figures call the machine, and a store its folder: the GPU that is used, or else the CPU and its cores."""
    return accelerator or f"{cpu_name()}, {machine.cores()} cores"


@functools.cache
def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name, with family and model where it has them: virtual machines hide the rest of the name, and
    one "AMD EPYC" has twice the vectors of another."""
    try:
        text = cpuinfo.read_text(encoding="utf-8")
    except OSError:  # a system without /proc, or a sandbox that hides it
        text = ""
    lines = (line.partition(":") for line in text.splitlines())
    facts = {key.strip(): value.strip() for key, _, value in reversed(list(lines))}
    name = facts.get("model name") or facts.get("Hardware") or facts.get("Model") or platform.machine()
    number = ", ".join(f"{key.split()[-1]} {facts[key]}" for key in ("cpu family", "model") if key in facts)
    return f"{name} ({number})" if number else name


@functools.cache
def nvml() -> Any:
    """NVML's bindings, ready to be asked; None without an NVIDIA driver or without the bindings."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


@functools.cache
def gpus() -> list[dict[str, Any]]:
    """Name, memory and driver of each NVIDIA GPU; empty without one."""
    pynvml = nvml()
    if pynvml is None:
        return []
    devices = []
    for i in range(pynvml.nvmlDeviceGetCount()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(i)
        try:
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle).total
        except pynvml.NVMLError:  # some devices share the system's memory
            memory = 0
        driver = pynvml.nvmlSystemGetDriverVersion()
        devices.append({"name": pynvml.nvmlDeviceGetName(handle), "memory_bytes": memory, "driver": driver})
    return devices


def versions() -> dict[str, str]:
    """The libraries that a number depends on, those that are installed."""
    installed = {}
    for name in LIBRARIES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


@functools.cache
def git() -> dict[str, Any]:
    """The commit of the code and whether it was changed; None where there is no checkout: a package that is installed
    somewhere in another project's checkout is not part of that.
    """
    if _git("rev-parse", "--show-prefix") != "":
        return {"commit": None, "dirty": None}
    commit = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changed is None else bool(changed)}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
