"""One thing to measure, as plain data, and the id that names its record."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rwkv_core.spec import ModelSpec

LONGEST_NAME = 229  # bytes: with the hash and a store's longest ending, the 255 that file systems allow
DIGITS = 10


@dataclass(frozen=True)
class Cell:
    """An experiment with its parameters, on a model, a device and a type.

    version: of the experiment.
    model: None where the experiment needs none.
    threads: of torch; 0 for as many as the process may use.
    params: every parameter of the experiment; what names a file has its content's name in the file's place.
    differing: which of them differ from their defaults. Only these are in the id.
    paths: where on this machine the files lie that parameters, or the model's `weights`, stand for; not recorded.
    """

    experiment: str
    version: int
    model: ModelSpec | None
    device: str
    dtype: str
    params: Mapping[str, Any] = field(hash=False)
    differing: tuple[str, ...] = ()
    threads: int = 0
    paths: Mapping[str, str] = field(default_factory=dict, compare=False)

    @functools.cached_property
    def id(self) -> str:
        """A readable name and a hash of what was measured; also the name of the record's file, so that there is no / in
        it. Labels, sizes that follow from the architecture, and what is at its default are in neither.
        """
        digest = hashlib.sha256(json.dumps(self._measured(), sort_keys=True).encode()).hexdigest()[:DIGITS]
        words = "_".join(self.words).replace("/", "-")
        readable = words.encode()[:LONGEST_NAME].decode(errors="ignore")
        return f"{readable}_{digest}"

    @property
    def group(self) -> tuple[ModelSpec | None, str, str]:
        """Cells of one group share a loaded model."""
        return self.model, self.device, self.dtype

    @property
    def title(self) -> str:
        """What a progress bar says."""
        return self.experiment if self.model is None else f"{self.experiment} {self.model.label}"

    @property
    def seed(self) -> int | None:
        """The seed of weights that were made here; None where they were read."""
        return self.params.get("seed") if self.model is None else self.model.seed

    @property
    def settings(self) -> dict[str, Any]:
        """Every axis and parameter by its name."""
        axes = {"device": self.device, "dtype": self.dtype, "threads": self.threads}
        if self.model is not None:
            axes |= {key: getattr(self.model, key) for key in ("weights", "attention", "cache", "runtime")}
        return {**axes, **self.params}

    def chosen(self, only: str) -> bool:
        """Whether its id contains `only`, or it has that setting: "protocol=fair"."""
        return only in self.id or only in {f"{key}={value}" for key, value in self.settings.items()}

    def to_json(self) -> dict[str, Any]:
        """For a record, which does not tell where somebody's files lie."""
        content = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "paths"}
        content |= {"model": self.model and dataclasses.asdict(self.model), "differing": list(self.differing)}
        return {"id": self.id, **content}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Cell:
        """Raises ValueError where it is no cell, or has another id than its content."""
        model = saved.get("model")
        try:
            fields = {key: value for key, value in saved.items() if key != "id"}
            fields |= {"model": ModelSpec(**model) if model else None, "differing": tuple(saved["differing"])}
            cell = cls(**fields)
            named, measured = saved["id"], cell.id
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"no cell ({error})") from error
        if named != measured:
            raise ValueError(f"its id is {named}, and its content's {measured}")
        return cell

    def _measured(self) -> dict[str, Any]:
        """What the hash is of."""
        content: dict[str, Any] = {key: getattr(self, key) for key in ("experiment", "version", "device", "dtype")}
        content["params"] = {key: self.params[key] for key in self.differing}
        if self.threads:
            content["threads"] = self.threads
        if (model := self.model) is None:
            return content
        names = ["name", "architecture", "context_length", "weights", "attention", "runtime"]
        names += ["repo", "revision"] if model.weights == "pretrained" else []
        content["model"] = {name: getattr(model, name) for name in names}
        if model.cache != "preallocated":
            content["model"]["cache"] = model.cache
        return content

    @property
    def words(self) -> list[str]:
        """The parts of the readable name, which only the cell decides: what is usual elsewhere may change."""
        words = [self.experiment]
        if (model := self.model) is not None:
            words += [model.name, *([model.weights] if model.weights != "pretrained" else [])]
            ours = str(model.architecture.get("model_type")).startswith("rwkv")
            usual = {"attention": "default", "cache": "preallocated", "runtime": "native" if ours else "transformers"}
            words += [f"{key}={getattr(model, key)}" for key, value in usual.items() if getattr(model, key) != value]
        words += [self.device, self.dtype, *([f"threads={self.threads}"] if self.threads else [])]
        return [*words, *(f"{key}={self.params[key]}" for key in self.differing)]
