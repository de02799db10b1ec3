"""configs/models -> specs; where a spec's weights lie, and whether they have its size."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import configs
from rwkv_core.errors import BadInput, did_you_mean
from rwkv_core.spec import ModelSpec

ROOT = Path(__file__).resolve().parents[1]


@functools.cache
def catalogue() -> dict[str, ModelSpec]:
    """Every model of configs/models by name."""
    families = configs.read("models").items()
    return {name: ModelSpec(name, family, **entry) for family, models in families for name, entry in models.items()}


def find(name: str, **changes: Any) -> ModelSpec:
    """The spec of a name, with other weights, attention or cache where given. Raises BadInput for an unknown one."""
    specs = catalogue()
    if name not in specs:
        raise BadInput(f"unknown model {name!r}{did_you_mean(name, specs)}")
    return dataclasses.replace(specs[name], **changes)


def local(spec: ModelSpec) -> Path | None:
    """Where on this machine the spec's weights lie; None where they come from the hub."""
    if spec.weights != "pretrained":
        return Path(spec.weights)
    kind, _, folder = spec.repo.partition(":")
    return ROOT / folder if kind == "package" else None


def offline(spec: ModelSpec, error: Exception) -> str:
    """One line for a hub model that cannot be had."""
    return (
        f"{spec.name}: the hub repository {spec.repo} at {spec.revision} is neither cached nor reachable "
        f"({type(error).__name__}); copy it here and give its folder as `weights:`, or use `weights: random:0`"
    )


def check_room(spec: ModelSpec, needed: float, free: int | None, where: str, what: str = "weights") -> None:
    """Raises MemoryError where `needed` bytes are more than are free, if that is known."""
    if free is not None and needed > free:
        raise MemoryError(f"{spec.name}: {needed / 1e9:.1f} GB of {what}, {free / 1e9:.1f} GB free {where}")


def check_size(spec: ModelSpec, source: str | Path, count: int) -> None:
    """Raises BadInput where `count` parameters were read for a model that has another number of them."""
    if spec.parameters and count != spec.parameters:
        raise BadInput(f"{source}: {count:,} parameters, {spec.name} has {spec.parameters:,}; is it that model?")


def check_shape(spec: ModelSpec, source: str | Path, architecture: Mapping[str, Any]) -> None:
    """Raises BadInput where a checkpoint's shape, as far as it can be read, is another one than the spec's."""
    for key, value in spec.architecture.items():
        if architecture.get(key, value) != value:
            raise BadInput(f"{source}: {key} is {architecture[key]}, {spec.name} has {value}; is it that model?")
