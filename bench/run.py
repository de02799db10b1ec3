"""Cells of one model -> records. Whatever happens to a cell becomes its status."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import math
import os
import re
import sysconfig
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from bench.cells import arguments, check_files, spec
from bench.experiments import EXPERIMENTS
from bench.instruments import disturbance
from reports.records import provenance
from reports.records.cell import Cell
from reports.records.record import Record, Status
from rwkv_core import machine
from rwkv_core.errors import BadInput, Unsupported, out_of_memory
from rwkv_core.files import together
from rwkv_core.load import load
from rwkv_core.models import ROOT
from rwkv_core.spec import LanguageModel


def measure(cells: Iterable[Cell]) -> Iterator[Record]:
    """One record a cell, in order, each cell taken when the one before is done; the cells share an experiment and a
    model, which is loaded once.
    """
    cells = iter(cells)
    first = next(cells)
    cells = itertools.chain([first], cells)
    loaded, (_, device, dtype) = spec(first), first.group
    experiment = EXPERIMENTS[first.experiment]
    if loaded is None or experiment.subject == "spec":
        subject = [] if loaded is None else [loaded]
        for cell in cells:
            yield _measure(cell, functools.partial(experiment.run, *subject, dtype=dtype), dict)
        return
    torch.set_num_threads(threads())
    try:
        model = load(loaded, device=device, dtype=dtype)
    except Exception as error:
        for cell in cells:
            yield failed(cell, error)
        return
    for cell in cells:
        yield _measure(cell, functools.partial(experiment.run, model), lambda: _facts(model))


def threads() -> int:
    """The process's threads of torch, no more than the cores that it may use: torch knows of no container's quota."""
    return min(torch.get_num_threads(), machine.cores())


def failed(cell: Cell, error: Exception) -> Record:
    """The record of a cell that ended with `error`: a finding where its type means one, else `failed`."""
    if isinstance(error, Unsupported):
        return without_result(cell, "unsupported", error)
    if out_of_memory(error):
        return without_result(cell, "oom", error)
    if isinstance(error, BadInput):  # the line says it all
        return without_result(cell, "failed", error)
    return without_result(cell, "failed", error, "".join(traceback.format_exception(error)))


def without_result(cell: Cell, status: Status, why: object, trace: str = "") -> Record:
    """A record that says why there is no number; `why` in its first line."""
    lines = str(why).strip().splitlines() or [type(why).__name__]
    error, trace = _placeless(lines[0], cell), _placeless(trace, cell)
    return Record(cell, status, error=error, traceback=trace, provenance=_provenance(cell))


def _placeless(text: str, cell: Cell) -> str:
    """A text for a record: it tells what a file is called, not where on somebody's machine it lies. What is no text in
    a file's name is escaped.
    """
    folders = [Path(path).parent for path in cell.paths.values()]
    folders += [ROOT, Path(tempfile.gettempdir()), *map(Path, sysconfig.get_paths().values())]
    with contextlib.suppress(RuntimeError):  # a user without a home
        folders.append(Path.home())
    for folder in sorted({str(folder) for folder in folders if len(folder.parts) > 1}, key=len, reverse=True):
        text = re.sub(rf"(?<![\w./-]){re.escape(folder)}/", "", text)
    return text.encode(errors="backslashreplace").decode()


def definition(cell: Cell) -> str:
    """What stands for what configs/ say of the cell's task or schedule, which its id only names; empty where they say
    nothing. Where it has changed since, a record is of another task.
    """
    defined = EXPERIMENTS[cell.experiment].definition
    return together([json.dumps(defined(cell.params), sort_keys=True)]) if defined else ""


@contextlib.contextmanager
def _with_threads(cell: Cell) -> Iterator[None]:
    """As many threads of torch as the cell says, and afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(cell.threads or threads())
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _measure(cell: Cell, run: Callable[..., tuple[Any, Any]], facts: Callable[[], dict[str, Any]]) -> Record:
    with _with_threads(cell):
        return _measured(cell, run, facts)


def _measured(cell: Cell, run: Callable[..., tuple[Any, Any]], facts: Callable[[], dict[str, Any]]) -> Record:
    started = time.perf_counter()
    try:
        check_files(cell)
        try:
            metrics, samples = run(device=cell.device, **arguments(cell))
        finally:  # whatever came of it was not of what the cell is named by
            check_files(cell)
    except Exception as error:
        return failed(cell, error)
    if wrong := _unwritable({"metrics": metrics, "samples": samples}):
        return without_result(cell, "failed", f"{wrong}, which is no result and cannot be recorded")
    wall = round(time.perf_counter() - started, 2)
    provenance = _provenance(cell, threads=torch.get_num_threads(), waits=waits(os.environ), wall_s=wall, **facts())
    verdict = disturbance.verdict(samples)
    return Record(cell, "disturbed" if verdict else "ok", metrics, samples, error=verdict, provenance=provenance)


def _unwritable(value: Any, name: str = "") -> str:
    """Which part of a result is NaN, infinite or no JSON, and what it is: "metrics.perplexity is inf"; or nothing."""
    if isinstance(value, Mapping):
        if odd := next((key for key in value if not isinstance(key, str | int)), None):
            return f"{name} has the key {odd!r}"
        parts = ((f"{name}.{key}" if name else key, part) for key, part in value.items())
    elif isinstance(value, list | tuple):
        parts = ((f"{name}[{i}]", part) for i, part in enumerate(value))
    elif value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return ""
    else:
        return f"{name} is {value!r}"
    return next(filter(None, (_unwritable(part, key) for key, part in parts)), "")


def waits(environment: Mapping[str, str]) -> str:
    """How threads wait for each other, as far as the environment says it."""
    said = (f"{name}={environment[name]}" for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT") if name in environment)
    return ", ".join(said) or "default"


def _facts(model: LanguageModel) -> dict[str, Any]:
    return {
        "attention": model.attention,
        "cache": model.cache,
        "weights_fingerprint": model.fingerprint(),
        "weights_revision": model.revision,
        **({"weights_layout": model.layout} if model.layout else {}),
    }


def accelerator(device: str) -> str | None:
    """The GPU that a cell of that device is measured on; None for the CPU, and where there is none."""
    return torch.cuda.get_device_name() if device == "cuda" and torch.cuda.is_available() else None


def _provenance(cell: Cell, **facts: Any) -> dict[str, Any]:
    defined = {"definition": digest} if (digest := definition(cell)) else {}
    return provenance.collect(accelerator(cell.device), **facts, **defined)
