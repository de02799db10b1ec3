"""What an experiment is: a function whose signature is its schema, and how the rig has to treat it."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

AXES = ("device", "dtype")  # are of the matrix, like the model
NEEDED = inspect.Parameter.empty
Measured = tuple[dict[str, Any], dict[str, Any]]  # metrics, single values; samples, raw lists
Params = Mapping[str, Any]
Identify = Callable[[str, Params], tuple[str, str]]  # a parameter, all of them -> what stands for its content; its path


@dataclass(frozen=True)
class Experiment:
    """How the rig has to treat an experiment.

    run: (subject, *, device, **params) -> Measured; its keyword parameters are those of a matrix.
    version: another when the numbers mean something else, or a default changes.
    subject: a loaded model; its spec alone, which needs no weights; or none, where no model is named. Of the latter two
        `run` also takes `dtype`.
    timed: each cell alone in a fresh process.
    grows: parameters by which a cell grows, so that where one runs out of memory larger ones would too.
    reads: of each parameter that names a file or a folder, a function (value, params) -> what stands for its content,
        which takes the value's place in the cell, and where it lies, which `run` is given; see identity.py.
    definition: params -> what configs/ say of what a parameter names; where that has changed, a cell is measured anew.
    processes: the parameter that says how many processes share a cell.
    """

    run: Callable[..., Measured]
    version: int
    subject: Literal["model", "spec", "none"] = "model"
    timed: bool = False
    grows: tuple[str, ...] = ()
    reads: Mapping[str, Identify] = field(default_factory=dict)
    definition: Callable[[Params], Any] | None = None
    processes: str = ""

    @functools.cached_property
    def defaults(self) -> dict[str, Any]:
        """The parameters that a matrix may set, in their order, with their defaults; `NEEDED` where there is none."""
        keywords = inspect.signature(self.run).parameters.values()
        return {p.name: p.default for p in keywords if p.kind is p.KEYWORD_ONLY and p.name not in AXES}

    @functools.cached_property
    def hints(self) -> dict[str, Any]:
        """The types of the parameters, with what `Annotated` adds to them."""
        return typing.get_type_hints(self.run, include_extras=True)


class AtLeast(NamedTuple):
    """The smallest value of an experiment's parameter: `repeats: Annotated[int, AtLeast(3)] = 3`."""

    least: float


class OneOf(NamedTuple):
    """The names that an experiment's parameter may have: `task: Annotated[str, OneOf(names)]`."""

    names: Callable[[], Iterable[str]]


class Numbers(NamedTuple):
    """Several whole numbers in one value, rising, none below `least`: `sizes: Annotated[str, Numbers(1)] = "8, 16"`."""

    least: int

    def read(self, value: object) -> list[int]:
        """The numbers. Raises ValueError where they are written in another way, since a cell is named by the text."""
        numbers = [int(number) for number in str(value).split(", ")]
        if value != ", ".join(map(str, sorted({*numbers}))) or numbers[0] < self.least:
            raise ValueError(value)
        return numbers
