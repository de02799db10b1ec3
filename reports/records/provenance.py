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
from rwkv_core.errors import BadInput

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("bench", "configs", "evals", "reports", "rwkv_core")
GALLERY = "reports/gallery"  # records and the matrices of them: no code, and written while something is measured
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
    """The processor's name, with family and model, or maker and part, where it has them: virtual machines hide the rest
    of the name, and one "AMD EPYC" has twice the vectors of another."""
    try:
        text = cpuinfo.read_text(encoding="utf-8")
    except OSError:  # a system without /proc, or a sandbox that hides it
        text = ""
    lines = (line.partition(":") for line in text.splitlines())
    facts = {key.strip(): value.strip() for key, _, value in reversed(list(lines))}
    name = facts.get("model name") or facts.get("Hardware") or facts.get("Model") or platform.machine()
    keys = ("cpu family", "model", "CPU implementer", "CPU part")
    number = ", ".join(f"{key.split()[-1]} {facts[key]}" for key in keys if key in facts)
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


@functools.cache
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
    files = changes()
    return {"commit": _git("rev-parse", "HEAD"), "dirty": None if files is None else bool(files)}


def changes() -> list[str] | None:
    """The files that differ from the commit, the gallery's apart: what git tracks, and of what it neither tracks nor
    ignores what lies in the packages, where it may be imported. None where git does not say.
    """
    beside = f":(exclude){GALLERY}"
    tracked = _git("diff", "--name-only", "-z", "HEAD", "--", ".", beside)
    untracked = _git("ls-files", "--others", "--exclude-standard", "-z", "--", *PACKAGES, beside)
    if tracked is None or untracked is None:
        return None
    return sorted(filter(None, {*tracked.split("\0"), *untracked.split("\0")}))


def check_repeatable(folder: Path) -> None:
    """Raises BadInput where the folder lies in the gallery of this checkout, however its path is written, and the code
    is not what a commit holds.
    """
    if not in_gallery(folder):
        return
    if git()["commit"] is None or (files := changes()) is None:
        raise BadInput(f"{folder}: in the gallery, and no commit names this code; run from a checkout or give --store")
    if files:
        named = ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
        raise BadInput(
            f"{folder}: in the gallery, and the code was changed ({named}); commit or undo that, or give --store"
        )


def in_gallery(folder: Path) -> bool:
    """Whether a folder lies in the gallery of this checkout, however its path is written."""
    return folder.resolve().is_relative_to((ROOT / GALLERY).resolve())


def _git(*arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(ROOT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="backslashreplace", timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
