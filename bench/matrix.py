"""A matrix in YAML -> cells."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml

from bench import cells
from bench.experiments import EXPERIMENTS
from evals.experiment import NEEDED, AtLeast, Numbers, OneOf
from reports.records.cell import Cell
from rwkv_core import dtypes, models, utf8
from rwkv_core.content import identified
from rwkv_core.errors import BadInput, did_you_mean
from rwkv_core.runtimes import RUNTIMES
from rwkv_core.spec import ModelSpec

DEVICES = ("cpu", "cuda")
AXES = {
    "model": None,
    "weights": "pretrained",
    "attention": "default",
    "cache": "preallocated",
    "runtime": "default",
    "device": "cpu",
    "dtype": "float32",
    "threads": 0,
}
OF_MODEL = ("model", "weights", "attention", "cache", "runtime")  # not of an experiment that needs none

Contents = dict[tuple[Any, ...], Any]


def read(path: Path, overrides: Mapping[str, str] | None = None) -> list[Cell]:
    """The cells of a matrix file, in its order, grouped by model; `overrides`: values that go before the file's in
    every run that has such a parameter. Raises BadInput naming file and key.
    """
    try:
        matrix = yaml.safe_load(utf8.read(path))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); matrices lie in configs/") from error
    except yaml.YAMLError as error:
        raise BadInput(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    if (
        not isinstance(matrix, dict)
        or not isinstance(matrix.get("runs"), list)
        or not matrix["runs"]
        or len(matrix) != 1
    ):
        raise BadInput(f"{path}: a matrix is a mapping with the one key `runs:`, a list; see configs/pocket.yaml")
    overrides = overrides or {}
    contents: Contents = {}
    planned = [
        cell
        for i, run in enumerate(matrix["runs"], 1)
        for cell in _expand(run, f"{path}, run {i}", overrides, contents)
    ]
    for key in overrides:
        if not any(key in cell.params for cell in planned):
            raise BadInput(f"{path}: nothing in this matrix reads {key}, so there is nothing to replace")
    order = {group: i for i, group in enumerate(dict.fromkeys(cell.group for cell in planned))}
    unique: dict[str, Cell] = {}
    for cell in planned:
        unique.setdefault(cell.id, cell)  # a cell's hash is that of its group alone
    return sorted(unique.values(), key=lambda cell: order[cell.group])


def _expand(run: Any, where: str, overrides: Mapping[str, str], contents: Contents) -> list[Cell]:
    """The product of every list in one run. contents: what identifies the files of other cells of the plan."""
    if not isinstance(run, dict):
        raise BadInput(f"{where}: must be a mapping with `experiment` and `model`, not {run!r}")
    name = run.get("experiment")
    if not isinstance(name, str) or name not in EXPERIMENTS:
        raise BadInput(f"{where}: unknown experiment {name!r}{did_you_mean(str(name), EXPERIMENTS)}")
    defaults = EXPERIMENTS[name].defaults
    modelless = EXPERIMENTS[name].subject == "none"
    axes = {key: value for key, value in AXES.items() if not (modelless and key in OF_MODEL)}
    for key in run:
        if modelless and key in OF_MODEL:
            raise BadInput(f"{where}: {name} needs no model, so that `{key}` says nothing; remove it")
        if key not in {"experiment", *axes, *defaults}:
            raise BadInput(f"{where}: {name} has no parameter {key!r}{did_you_mean(str(key), [*axes, *defaults])}")
    if not modelless and "model" not in run:
        raise BadInput(f"{where}: `model` is missing; give one name of configs/models, or a list")
    if missing := [key for key, value in defaults.items() if value is NEEDED and key not in run]:
        raise BadInput(f"{where}: {name} needs `{missing[0]}`")
    run = {**axes, **defaults, **run, **{key: value for key, value in overrides.items() if key in defaults}}
    lists = {key: value if isinstance(value, list) else [value] for key, value in run.items()}
    if empty := [key for key, values in lists.items() if not values]:
        raise BadInput(f"{where}: {empty[0]} is an empty list")
    product = itertools.product(*lists.values())
    return [_cell(where, name, dict(zip(lists, values, strict=True)), contents) for values in product]


def _cell(where: str, name: str, one: Mapping[str, Any], contents: Contents) -> Cell:
    """The cell of one value for each axis and parameter."""
    experiment = EXPERIMENTS[name]
    model = None if experiment.subject == "none" else _model(where, one)
    if model and experiment.subject == "spec":  # of which nothing runs
        model = dataclasses.replace(model, attention="default", cache="preallocated", runtime="")
    _choice(where, "device", one["device"], DEVICES)
    _choice(where, "dtype", one["dtype"], dtypes.DTYPES)
    threads = one["threads"]
    if type(threads) is not int or threads < 0:
        raise BadInput(f"{where}: threads must be a whole number, 0 for one a core, not {threads!r}")
    params = {key: one[key] for key in experiment.defaults}
    _check(where, name, params)
    model, paths = _name_files(where, name, model, params, contents)
    return cells.make(name, model, one["device"], one["dtype"], params, threads, paths)


def _model(where: str, one: Mapping[str, Any]) -> ModelSpec:
    _choice(where, "attention", one["attention"], ("default", "transformers", "eager"))
    _choice(where, "cache", one["cache"], ("preallocated", "dynamic"))
    _choice(where, "runtime", one["runtime"], ("default", *RUNTIMES))
    kinds = {key: one[key] for key in ("attention", "cache")}
    kinds["runtime"] = "" if one["runtime"] == "default" else one["runtime"]
    try:
        model = models.find(str(one["model"]), weights=_weights(one["weights"]), **kinds)
        _ = model.seed
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from error
    if model.recurrent:  # has neither to choose
        model = dataclasses.replace(model, attention="default", cache="preallocated")
    return model


def _name_files(
    where: str, experiment: str, model: ModelSpec | None, params: dict[str, Any], contents: Contents
) -> tuple[ModelSpec | None, dict[str, str]]:
    """Put what identifies its content in place of each file that `params` names; the model with its own content, and
    where the files are.
    """
    paths = {}

    def once(key: tuple[Any, ...], identify: Callable[[], Any]) -> Any:
        if key not in contents:
            contents[key] = identify()
        return contents[key]

    try:
        for key, identify in EXPERIMENTS[experiment].reads.items():
            same = (identify, params[key], params.get("task"))  # no other parameter tells files apart
            params[key], paths[key] = once(same, functools.partial(identify, params[key], params))
        place = ""
        if model is not None:
            model, place = once((model,), functools.partial(identified, model))
        for key, path in {**paths, "weights": place}.items():
            _check_name(key, path)
    except (BadInput, OSError) as error:
        raise BadInput(f"{where}: {error}") from error
    return model, {**paths, "weights": place} if place else paths


def _check_name(key: str, path: str) -> None:
    """Raises BadInput for a name that is no text: what reads the file (JSON, YAML, Rust) could not be told of it."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        name = path.encode(errors="backslashreplace").decode()
        raise BadInput(f"{key} {name!r}: a name that is not UTF-8; set LC_ALL=C.UTF-8, or else rename it") from error


def _weights(value: Any) -> str:
    """What stands for `weights`; a path is made absolute, since cells run elsewhere. Links are not followed: in the
    hub's cache they alone have names, and the tokenizer beside.
    """
    if not isinstance(value, str):
        raise BadInput(f"weights {value!r}: write pretrained, random:SEED or a path")
    if value == "pretrained" or value.startswith(("random:", "fresh:")):
        return value
    path = Path(value).expanduser().absolute()
    if not path.exists():
        raise BadInput(
            f"weights {value!r}: no such file or folder; write pretrained, random:SEED, fresh:SEED or a path"
        )
    return str(path)


def _check(where: str, experiment: str, params: Mapping[str, Any]) -> None:
    """Each value against the annotation in the experiment's signature."""
    hints = EXPERIMENTS[experiment].hints
    for key, value in params.items():
        hint, mark = hints[key], None
        if get_origin(hint) is typing.Annotated:
            hint, mark = get_args(hint)
        if get_origin(hint) is Literal:
            _choice(where, key, value, get_args(hint))
        elif isinstance(mark, Numbers):
            _numbers(where, key, value, mark)
        elif type(value) is not hint:
            raise BadInput(f"{where}: {key} must be a value of type {hint.__name__}, not {value!r}")
        elif isinstance(mark, OneOf):
            _choice(where, key, value, mark.names())
        elif isinstance(mark, AtLeast) and value < mark.least:
            raise BadInput(f"{where}: {key} must be at least {mark.least}, not {value!r}")


def _numbers(where: str, key: str, value: Any, mark: Numbers) -> None:
    try:
        mark.read(value)
    except ValueError as error:
        form = f'rising whole numbers of at least {mark.least} in quotes, as in "8, 16, 32"'
        raise BadInput(f"{where}: {key} must be {form}, not {value!r}") from error


def _choice(where: str, key: str, value: Any, choices: Iterable[str]) -> None:
    if value not in choices:
        raise BadInput(f"{where}: unknown {key} {value!r}{did_you_mean(str(value), choices)}")
