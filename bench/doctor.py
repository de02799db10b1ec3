"""What this machine can do, and which experiments that allows."""

from __future__ import annotations

import shutil
import statistics
import time
import urllib.request
from collections.abc import Iterator

import torch
from huggingface_hub import constants

from bench import run
from bench.experiments import EXPERIMENTS
from reports.records import provenance
from rwkv_core import machine, models, softmax
from rwkv_core.linear import products
from rwkv_core.rwkv import mixing
from rwkv_core.wkv import OPERATORS

BANDWIDTH_BYTES = 512 << 20  # far beyond any cache
HUB_TIMEOUT_S = 3


def examine() -> Iterator[tuple[str, str]]:
    """(what, found) lines, each as soon as it is known."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    facts = provenance.collect(None)
    yield "python", f"{facts['python']} on {facts['platform']}"
    yield "libraries", ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    quota = machine.cpu_quota()
    limit = "" if quota is None else f" (a quota of {quota:g} CPUs)"
    yield "cpu", f"{facts['cpu']}, {facts['cores']} cores{limit}, torch uses {run.threads()} threads"
    free, total = machine.free_memory(), facts["memory_bytes"]
    yield "memory", f"{free / 2**30:.1f} GiB free of {total / 2**30:.1f}" if free and total else "unknown"
    yield "memory bandwidth", _bandwidth()
    yield "gpu", "; ".join(_gpu(g) for g in facts["gpus"]) or "none that NVML knows"
    yield "cuda in torch", f"{torch.version.cuda}" if torch.cuda.is_available() else "not available"
    yield "c compiler", shutil.which("cc") or shutil.which("gcc") or "none"
    yield "triton", facts["versions"].get("triton") or "not installed"
    for operator in OPERATORS.values():
        for name, implementation in operator.implementations.items():
            yield f"{operator.name}: {name}", implementation.lacks(device, torch.float32) or "ready"
        yield f"{operator.name}: auto", operator.choose("auto", device, torch.float32)
    yield "linear layers: c", products.LIBRARY.lacks(device, torch.float32) or "ready"
    yield "token shift: c", mixing.LIBRARY.lacks(device, torch.float32) or "ready"
    yield "scored logits: c", softmax.LIBRARY.lacks(device, torch.float32) or "ready"
    yield "model hub", _hub()
    yield "experiments", ", ".join(EXPERIMENTS) + (" on cpu and cuda" if torch.cuda.is_available() else " on cpu")
    yield "largest float32", _largest(free)


def _bandwidth() -> str:
    """Copying a block that no cache holds, read and write counted; median of seven."""
    source = torch.ones(BANDWIDTH_BYTES // 8)
    target = torch.empty_like(source)
    rates = []
    for _ in range(8):
        started = time.perf_counter()
        target.copy_(source)
        rates.append(2 * source.nbytes / (time.perf_counter() - started) / 1e9)
    rates = sorted(rates[1:])
    return f"{statistics.median(rates):.1f} GB/s copying ({rates[0]:.1f} to {rates[-1]:.1f} in {len(rates)} runs)"


def _gpu(gpu: dict[str, object]) -> str:
    return f"{gpu['name']}, {int(str(gpu['memory_bytes'])) / 2**30:.0f} GiB, driver {gpu['driver']}"


def _hub() -> str:
    if constants.HF_HUB_OFFLINE:
        return "switched off (HF_HUB_OFFLINE): pretrained weights from the cache or a local folder"
    try:
        urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=HUB_TIMEOUT_S)
    except OSError:
        return "not reachable: random weights, cached ones, or a local folder as `weights:`"
    return "reachable"


def _largest(free: int | None) -> str:
    fitting = [spec for spec in models.catalogue().values() if free is None or spec.parameters * 4 < free]
    by_family = {spec.family: spec.name for spec in sorted(fitting, key=lambda spec: spec.parameters)}
    return "fits in memory: " + ", ".join(by_family.values())
