"""Cells and records for tests: as they lie in a store, without anything measured."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

from reports.records.cell import Cell
from reports.records.record import Record, Status
from rwkv_core import models
from rwkv_core.spec import ModelSpec

PROVENANCE = {
    "machine": "Test CPU <2 cores>",
    "measured_at": "2026-01-01T00:00:00+00:00",
    "cpu": "Test CPU",
    "cores": 2,
    "memory_bytes": 2**34,
    "gpus": [],
    "platform": "Linux",
    "python": "3.11",
    "versions": {"torch": "2.13.0"},
    "commit": "0" * 40,
    "dirty": False,
    "threads": 2,
    "attention": "sdpa",
}


def cell(
    experiment: str,
    model: str | ModelSpec | None,
    params: Mapping[str, Any],
    *,
    version: int = 1,
    weights: str = "pretrained",
    threads: int = 0,
) -> Cell:
    """A cell on the CPU in float32, all of whose parameters are in its id. model: its name, with those weights."""
    spec = models.find(model, weights=weights) if isinstance(model, str) else model
    return Cell(experiment, version, spec, "cpu", "float32", dict(params), tuple(sorted(params)), threads)


def record(
    of: Cell,
    metrics: Mapping[str, Any] | None = None,
    samples: Mapping[str, Any] | None = None,
    status: Status = "ok",
    error: str = "",
    **provenance: Any,
) -> Record:
    """A record of a cell, with what else stands in its provenance."""
    return Record(of, status, dict(metrics or {}), dict(samples or {}), error, provenance={**PROVENANCE, **provenance})


def altered(original: Record, **changes: Any) -> Record:
    """The record of another cell, with metrics and samples that are not shared. changes: fields of its model, else of
    the cell, else its parameters.
    """
    new = original.cell
    for key, value in changes.items():
        if new.model is not None and key in {field.name for field in dataclasses.fields(ModelSpec)}:
            new = dataclasses.replace(new, model=dataclasses.replace(new.model, **{key: value}))
        elif key in {field.name for field in dataclasses.fields(Cell)}:
            new = dataclasses.replace(new, **{key: value})
        else:
            params = {**new.params, key: value}
            new = dataclasses.replace(new, params=params, differing=tuple(sorted({*new.differing, key})))
    metrics, samples = copy.deepcopy((original.metrics, original.samples))
    return dataclasses.replace(original, cell=new, metrics=metrics, samples=samples)


def measured_elsewhere(original: Record, **provenance: Any) -> Record:
    """The record of the same cell with other facts in its provenance: another machine, another time."""
    return dataclasses.replace(original, provenance={**original.provenance, **provenance})
