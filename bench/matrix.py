"""A matrix in YAML -> cells. The only table of experiment names."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml

from bench.experiments import EXPERIMENTS
from evals.experiment import NEEDED, AtLeast, OneOf
from rwkv_core import architectures, load, models, utf8
from rwkv_core.content import identified
from rwkv_core.errors import BadInput, did_you_mean
from rwkv_core.runtimes import RUNTIMES
from rwkv_core.spec import ModelSpec

LONGEST_NAME = 229  # bytes: with the hash and a store's longest ending, the 255 that file systems allow
DEVICES = ("cpu", "cuda")
AXES = {
    "model": None,
    "weights": "pretrained",
    "attention": "default",
    "cache": "preallocated",
    "runtime": "default",
    "device": "cpu",
    "dtype": "float32",
}


Known = dict[tuple[Any, ...], Any]


@dataclass(frozen=True)
class Cell:
    """One thing to measure. Two cells are the same when everything in here is, `paths` apart: where on this
    machine the files lie that a parameter, or the model's weights, stand for; these name their content.
    """

    experiment: str
    version: int
    model: ModelSpec
    device: str
    dtype: str
    params: Mapping[str, Any] = field(hash=False)
    paths: Mapping[str, str] = field(default_factory=dict, compare=False)

    @functools.cached_property
    def id(self) -> str:
        """A readable name and a hash of all of it; also the name of its record's file."""
        content = json.dumps(self._content(), sort_keys=True)
        defaults = EXPERIMENTS[self.experiment].defaults
        named = [f"{k}={v}" for k, v in self.params.items() if v != defaults[k] or k == "protocol"]
        file = [self.model.weights] if self.model.weights.startswith("file:") else []
        parts = [self.experiment, self.model.name, *file, self.device, self.dtype, *named]
        readable = "_".join(parts).encode()[:LONGEST_NAME].decode(errors="ignore")
        return readable + "_" + hashlib.sha256(content.encode()).hexdigest()[:10]

    @property
    def group(self) -> tuple[ModelSpec, str, str]:
        """Cells of one group share a loaded model."""
        return self.model, self.device, self.dtype

    @property
    def arguments(self) -> dict[str, Any]:
        """The parameters as the experiment takes them, files by their path."""
        return {**self.params, **{key: path for key, path in self.paths.items() if key in self.params}}

    @property
    def spec(self) -> ModelSpec:
        """The model as it is loaded, weights by their path."""
        return dataclasses.replace(self.model, weights=self.paths.get("weights", self.model.weights))

    def check_files(self) -> None:
        """Raises BadInput where a file is no longer what the cell is named by, or is gone."""
        for key, path in self.paths.items():
            if path != self.params.get(key, path):  # or it names nothing that lies here
                identify = functools.partial(EXPERIMENTS[self.experiment].reads[key], path, self.params)
                _check_same(key, path, identify, self.params[key])
        if place := models.local(self.spec):
            _check_same("weights", str(place), functools.partial(identified, self.spec), self.model)

    def to_dict(self) -> dict[str, Any]:
        """For a record, which does not tell where somebody's files lie."""
        return {"id": self.id, **self._content()}

    def _content(self) -> dict[str, Any]:
        content = {key: value for key, value in dataclasses.asdict(self).items() if key != "paths"}
        if self.model.cache == AXES["cache"]:  # so that what was measured before there was a choice keeps its id
            del content["model"]["cache"]
        if self.model.runtime == architectures.of(self.model.architecture).runtime:
            del content["model"]["runtime"]
        return content

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Cell:
        fields = {k: v for k, v in saved.items() if k != "id"}
        return cls(**{**fields, "model": ModelSpec(**saved["model"])})

    def larger_than(self, other: Cell) -> bool:
        """The same measurement with nothing smaller and something larger, so that it needs more memory."""
        grows = EXPERIMENTS[self.experiment].grows
        same = (self.experiment, self.version, self.group) == (other.experiment, other.version, other.group)
        if not same or self == other or self.params.keys() != other.params.keys():
            return False
        return all(v >= other.params[k] if k in grows else v == other.params[k] for k, v in self.params.items())


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
    known: Known = {}
    cells = [
        cell for i, run in enumerate(matrix["runs"], 1) for cell in _expand(run, f"{path}, run {i}", overrides, known)
    ]
    for key in overrides:
        if not any(key in cell.params for cell in cells):
            raise BadInput(f"{path}: nothing in this matrix reads {key}, so there is nothing to replace")
    order = {group: i for i, group in enumerate(dict.fromkeys(cell.group for cell in cells))}
    unique: dict[str, Cell] = {}
    for cell in cells:
        unique.setdefault(cell.id, cell)  # a cell's hash is that of its group alone
    return sorted(unique.values(), key=lambda cell: order[cell.group])


def _expand(run: Any, where: str, overrides: Mapping[str, str], known: Known) -> list[Cell]:
    """The product of every list in one run. known: what has been identified for other cells of the plan."""
    if not isinstance(run, dict):
        raise BadInput(f"{where}: must be a mapping with `experiment` and `model`, not {run!r}")
    name = run.get("experiment")
    if not isinstance(name, str) or name not in EXPERIMENTS:
        raise BadInput(f"{where}: unknown experiment {name!r}{did_you_mean(str(name), EXPERIMENTS)}")
    defaults = EXPERIMENTS[name].defaults
    for key in run:
        if key not in {"experiment", *AXES, *defaults}:
            raise BadInput(f"{where}: {name} has no parameter {key!r}{did_you_mean(str(key), [*AXES, *defaults])}")
    if "model" not in run:
        raise BadInput(f"{where}: `model` is missing; give one name of configs/models, or a list")
    if missing := [key for key, value in defaults.items() if value is NEEDED and key not in run]:
        raise BadInput(f"{where}: {name} needs `{missing[0]}`")
    run = {**AXES, **defaults, **run, **{key: value for key, value in overrides.items() if key in defaults}}
    lists = {key: value if isinstance(value, list) else [value] for key, value in run.items()}
    if empty := [key for key, values in lists.items() if not values]:
        raise BadInput(f"{where}: {empty[0]} is an empty list")
    cells = []
    for values in itertools.product(*lists.values()):
        one = dict(zip(lists, values, strict=True))
        try:
            kinds = {"attention": one["attention"], "cache": one["cache"]}
            _choice(where, "runtime", one["runtime"], ("default", *RUNTIMES))
            kinds["runtime"] = "" if one["runtime"] == "default" else one["runtime"]
            model = models.find(str(one["model"]), weights=_weights(one["weights"]), **kinds)
            _ = model.seed
        except BadInput as error:
            raise BadInput(f"{where}: {error}") from error
        _choice(where, "attention", one["attention"], ("default", "eager"))
        _choice(where, "cache", one["cache"], ("preallocated", "dynamic"))
        if model.recurrent:  # has neither to choose
            model = dataclasses.replace(model, attention="default", cache="preallocated")
        _choice(where, "device", one["device"], DEVICES)
        _choice(where, "dtype", one["dtype"], load.DTYPES)
        params = {key: one[key] for key in defaults}
        _check(where, name, params)
        model, paths = _name_files(where, name, model, params, known)
        cells.append(Cell(name, EXPERIMENTS[name].version, model, one["device"], one["dtype"], params, paths))
    return cells


def _name_files(
    where: str, experiment: str, model: ModelSpec, params: dict[str, Any], known: Known
) -> tuple[ModelSpec, dict[str, str]]:
    """Put what identifies its content in place of each file that `params` names; the model with its own content, and
    where the files are.
    """
    paths = {}

    def once(key: tuple[Any, ...], identify: Callable[[], Any]) -> Any:
        if key not in known:
            known[key] = identify()
        return known[key]

    try:
        for key, identify in EXPERIMENTS[experiment].reads.items():
            same = (identify, params[key], params.get("task"))  # no other parameter tells files apart
            params[key], paths[key] = once(same, functools.partial(identify, params[key], params))
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


def _check_same(key: str, path: str, identify: Callable[[], tuple[Any, str]], planned: Any) -> None:
    why = f"{key} {Path(path).name!r}: changed or gone since it was planned; the same command plans it anew"
    try:
        now, _ = identify()
    except (BadInput, OSError) as error:
        raise BadInput(why) from error
    if now != planned:
        raise BadInput(why)


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
        elif type(value) is not hint:
            raise BadInput(f"{where}: {key} must be a value of type {hint.__name__}, not {value!r}")
        elif isinstance(mark, OneOf):
            _choice(where, key, value, mark.names())
        elif isinstance(mark, AtLeast) and value < mark.least:
            raise BadInput(f"{where}: {key} must be at least {mark.least}, not {value!r}")


def _choice(where: str, key: str, value: Any, choices: Iterable[str]) -> None:
    if value not in choices:
        raise BadInput(f"{where}: unknown {key} {value!r}{did_you_mean(str(value), choices)}")
