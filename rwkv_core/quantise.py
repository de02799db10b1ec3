"""Models whose matrices take fewer bits than what is computed with them, those of every family alike.

int8 on a CPU: each weight of torch's plain linear layers and embeddings becomes an Int8Matrix, shared where the weight
is; the arithmetic stays float32. Those stay in float32 that dtypes.quantises leaves (small ones, those of low rank),
that are no layer's `weight` (RWKV's low-rank parameters), or that a layer of another kind reads (OPT's positions).

int8 and int4 on CUDA: torchao's, of weights alone; the arithmetic is bfloat16. It knows linear layers: an embedding
stays in bfloat16, and a head that is one.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from torch import nn

from rwkv_core import architectures
from rwkv_core.dtypes import quantises
from rwkv_core.errors import Unsupported
from rwkv_core.linear import Int8Embedding, Int8Matrix, Linear
from rwkv_core.spec import ModelSpec

LAYERS: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: Linear, Linear: Linear, nn.Embedding: Int8Embedding}

Places = dict[nn.Parameter, list[tuple[nn.Module, str]]]


def check(spec: ModelSpec, dtype: str, device: str) -> None:
    """Raises Unsupported where the model cannot be had in that type on that device."""
    if spec.runtime != architectures.of(spec.architecture).runtime:
        why = f"`runtime: {spec.runtime}` is measured as others have it, and `dtype: {dtype}` is not theirs"
        raise Unsupported(f"{spec.name}: {why}; leave `runtime` out")
    if device == "cpu" and dtype != "int8":
        raise Unsupported(f"{spec.name}: {dtype} is there on CUDA alone; write `dtype: int8`")
    if device == "cuda" and importlib.util.find_spec("torchao") is None:
        raise Unsupported(f"{spec.name}: `dtype: {dtype}` on CUDA needs torchao; `pip install rwkv-bench[quantised]`")


def quantise(model: nn.Module, width: int, dtype: str, device: str) -> None:
    """Change the matrices of a model of that width in place, one at a time; it cannot be trained afterwards."""
    model.requires_grad_(False)
    if device == "cuda":
        _by_torchao(model, width, dtype)
        return
    places = _places(model)
    while places:  # so that each weight is freed before the next is made
        weight, shared = places.popitem()
        if all(type(layer) in LAYERS and name == "weight" for layer, name in shared) and _worth(weight, width):
            matrix = Int8Matrix(weight)
            for layer, name in shared:
                layer.__class__ = LAYERS[type(layer)]
                delattr(layer, name)
                setattr(layer, name, matrix)


def _places(model: nn.Module) -> Places:
    """Each parameter, and where it stands."""
    places: Places = {}
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False):
            places.setdefault(p, []).append((module, name))
    return places


def _worth(weight: nn.Parameter, width: int) -> bool:
    return weight.dim() == 2 and quantises(len(weight), weight.shape[1], width)


def _by_torchao(model: nn.Module, width: int, dtype: str) -> None:
    from torchao import quantization  # here, because few have it

    tile_packed = {"int4_packing_format": "tile_packed_to_4d"}  # torch's own kernel; the others need more packages
    configs: dict[str, Callable[[], object]] = {
        "int8": lambda: quantization.Int8WeightOnlyConfig(set_inductor_config=False),
        "int4": lambda: quantization.Int4WeightOnlyConfig(set_inductor_config=False, **tile_packed),
    }
    alone = {shared[0][0] for weight, shared in _places(model).items() if len(shared) == 1 and _worth(weight, width)}
    quantization.quantize_(
        model, configs[dtype](), filter_fn=lambda module, _: isinstance(module, nn.Linear) and module in alone
    )
