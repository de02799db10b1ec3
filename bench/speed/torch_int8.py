"""A model with torch's dynamic quantisation: linear layers of int8, whose inputs are quantised at every call."""

from __future__ import annotations

import copy
import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

NAME = "torch dynamic int8"
WHAT = "the model of `ours` after torch's quantize_dynamic: linear layers in int8, head too, their inputs at every call"


def lacks() -> str:
    """Why this torch cannot do it; empty where it can."""
    if importlib.util.find_spec("torch.ao.quantization") is None:  # it has been deprecated for long
        return "this torch has it no more"
    return "this build of torch has no engine for it" if torch.backends.quantized.engine == "none" else ""


def quantised(model: Any) -> Any:
    """A copy of an RWKV or an HFModel on the CPU whose linear layers torch has quantised; low-rank matrices that are
    no layers and the embedding stay as they are.
    """
    twin = copy.deepcopy(model)
    for module in twin.modules():
        if isinstance(module, nn.Linear):
            module.__class__ = nn.Linear  # which is all that torch looks for
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the deprecation
        torch.ao.quantization.quantize_dynamic(twin, {nn.Linear}, torch.qint8, inplace=True)
    for module in twin.modules():
        if isinstance(module, torch.ao.nn.quantized.dynamic.Linear):
            vars(module)["weight"] = _Weight(module)  # before the class's method of this name
    return twin


class _Weight:
    """Stands where our models read a layer's weight to multiply by it: the product is the quantised layer's. It is no
    tensor, so that linear.c leaves it to torch.
    """

    def __init__(self, layer: nn.Module) -> None:
        self._layer = layer

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Tensor:
        x, weight, *_ = args
        product: Tensor = weight._layer(x)
        return product
