"""What a version of RWKV is, and the only table of them. `Version` describes a module, as v4.py is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from rwkv_core.rwkv import v4, v5, v6, v7
from rwkv_core.wkv.operator import Operator


class Version(Protocol):
    """The attributes and functions of a version's module. B is the batch, C the width.

    NAME: in messages.
    FAMILY: of its models in configs/models.
    MODEL_TYPE: of their `architecture`, and of transformers' configuration where that knows the version.
    MARK: a regular expression that finds something in the names of this version's checkpoints alone.
    FLOAT32: how the names of weights end that stay in float32, since a state remembers their error: decays and boni.
    RESCALE_EVERY: layers after which the residual stream is halved in float16, which overflows without it; 0 where it
        does not.
    OPERATOR: the recurrence.
    Block: (shape, layer) -> a module; its forward(x, state, shared, rows, impl) -> x, state, shared.
    begin: what the blocks of one pass hand on to each other as `shared`, before the first.
    empty: (shape, batch, like) -> what a layer carries, a flat NamedTuple of tensors [B, ...].
    published: (tensors) -> those of a file, in any layout in which the version is published, under the module's names.
    sizes: (tensors, config) -> the `architecture` that a checkpoint's weights describe, its layers apart.
    initialise: (block, layer, layers, generator) fills a block as training begins.
    set_vectors: (block, layer, layers) fills its decays and shifts alone.
    """

    NAME: str
    FAMILY: str
    MODEL_TYPE: str
    MARK: str
    FLOAT32: tuple[str, ...]
    RESCALE_EVERY: int
    OPERATOR: Operator

    @property
    def Block(self) -> Callable[..., Any]: ...

    def begin(self, blocks: Sequence[Any]) -> Any: ...

    def empty(self, shape: Mapping[str, Any], batch: int, like: Tensor) -> tuple[Tensor, ...]: ...

    def published(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]: ...

    def sizes(self, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]: ...

    def initialise(self, block: Any, layer: int, layers: int, generator: torch.Generator) -> None: ...

    def set_vectors(self, block: Any, layer: int, layers: int) -> None: ...


VERSIONS: Sequence[Version] = (
    v7,
    v6,
    v5,
    v4,
)  # asked in this order whose a checkpoint is: later versions keep earlier names


def of(shape: Mapping[str, Any]) -> Version:
    """The version of an architecture. Raises KeyError where it is none of RWKV."""
    return {version.MODEL_TYPE: version for version in VERSIONS}[shape["model_type"]]
