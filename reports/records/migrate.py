"""Cells of earlier schemas -> of this one, in which an id is made of what was measured and of nothing else."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from reports.records.cell import Cell
from rwkv_core.spec import ModelSpec

DEFAULTS = Path(__file__).with_name("defaults.yaml")
RENAMED = {
    "lra": {"rise": "warmup", "every": "eval_every"},
    "pretrain": {"end_rate": "final_learning_rate"},
}
WITHOUT_MODEL = ("lra", "encoders")  # their cells had a model that was only a seed
POCKET = "package:evals/pocket"  # the beginning of the repositories of models that were trained on the pocket world


def upgraded(cell: Mapping[str, Any]) -> dict[str, Any]:
    """The cell of a record of schema 1 or 2 as schema 3 has it. Raises ValueError where it is none.

    Schema 3 has `threads` beside the parameters, no model where none is needed, the names of the parameters that differ
    from their defaults, and some of these under other names.
    """
    try:
        return _cell(cell).to_json()
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"no cell of an earlier schema ({error})") from error


def _cell(saved: Mapping[str, Any]) -> Cell:
    experiment, params = saved["experiment"], dict(saved["params"])
    defaults = _defaults().get(experiment, {})
    differing = [key for key, value in params.items() if key not in defaults or value != defaults[key]]
    threads = params.pop("threads", 0)
    model: ModelSpec | None = None
    if experiment in WITHOUT_MODEL:
        if "seed" not in params:
            params["seed"] = int(saved["model"]["weights"].partition(":")[2])
            differing += ["seed"] if params["seed"] else []
    else:
        trained_on = "pocket" if saved["model"]["repo"].startswith(POCKET) else ""
        model = ModelSpec(**saved["model"], trained_on=trained_on)
    names = {key: RENAMED.get(experiment, {}).get(key) or key for key in params}
    return Cell(
        experiment,
        saved["version"],
        model,
        saved["device"],
        saved["dtype"],
        {names[key]: value for key, value in params.items()},
        tuple(sorted(names[key] for key in differing if key != "threads")),
        threads,
    )


@functools.cache
def _defaults() -> dict[str, dict[str, Any]]:
    """Of every experiment's parameters, while ids were made of all parameters."""
    return dict(yaml.safe_load(DEFAULTS.read_text(encoding="utf-8")))
