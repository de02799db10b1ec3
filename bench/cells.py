"""Cells beside their experiments: what `run` is given, whether the files are still those, which of two is larger."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.experiments import EXPERIMENTS
from reports.records.cell import Cell
from rwkv_core import models
from rwkv_core.content import identified
from rwkv_core.errors import BadInput
from rwkv_core.spec import ModelSpec


def make(
    experiment: str,
    model: ModelSpec | None,
    device: str,
    dtype: str,
    params: Mapping[str, Any],
    threads: int = 0,
    paths: Mapping[str, str] | None = None,
) -> Cell:
    """The cell of an experiment as it is today; parameters that `params` lacks have their defaults."""
    defaults, version = EXPERIMENTS[experiment].defaults, EXPERIMENTS[experiment].version
    params = {**defaults, **params}
    differing = tuple(sorted(key for key, value in params.items() if key not in defaults or value != defaults[key]))
    return Cell(experiment, version, model, device, dtype, params, differing, threads, paths or {})


def changed(cell: Cell, **params: Any) -> Cell:
    """The cell with other values of some parameters."""
    changes = {**cell.params, **params}
    return make(cell.experiment, cell.model, cell.device, cell.dtype, changes, cell.threads, cell.paths)


def arguments(cell: Cell) -> dict[str, Any]:
    """The parameters as the experiment takes them, files by their path."""
    return {**cell.params, **{key: path for key, path in cell.paths.items() if key in cell.params}}


def spec(cell: Cell) -> ModelSpec | None:
    """The model as it is loaded, weights by their path."""
    return cell.model and dataclasses.replace(cell.model, weights=cell.paths.get("weights", cell.model.weights))


def check_files(cell: Cell) -> None:
    """Raises BadInput where a file is no longer what the cell is named by, or is gone."""
    for key, path in cell.paths.items():
        if path != cell.params.get(key, path):  # or it names nothing that lies here
            identify = functools.partial(EXPERIMENTS[cell.experiment].reads[key], path, cell.params)
            _check_same(key, path, identify, cell.params[key])
    loaded = spec(cell)
    if loaded is not None and (place := models.local(loaded)):
        _check_same("weights", str(place), functools.partial(identified, loaded), cell.model)


def _check_same(key: str, path: str, identify: Callable[[], tuple[Any, str]], planned: Any) -> None:
    why = f"{key} {Path(path).name!r}: changed or gone since it was planned; the same command plans it anew"
    try:
        now, _ = identify()
    except (BadInput, OSError) as error:
        raise BadInput(why) from error
    if now != planned:
        raise BadInput(why)


def alike(cell: Cell) -> tuple[Any, ...]:
    """What is the same in two cells of which one is larger: all but the parameters by which the experiment grows."""
    grows = EXPERIMENTS[cell.experiment].grows
    same = sorted((key, value) for key, value in cell.params.items() if key not in grows)
    return cell.experiment, cell.version, cell.group, cell.threads, tuple(same)


def larger(cell: Cell, smaller: Cell) -> bool:
    """Whether a cell is the same measurement as another with nothing smaller and something larger, so that it needs
    more memory.
    """
    grows = EXPERIMENTS[cell.experiment].grows
    if cell == smaller or cell.params.keys() != smaller.params.keys() or alike(cell) != alike(smaller):
        return False
    return all(cell.params[key] >= smaller.params[key] for key in grows)
