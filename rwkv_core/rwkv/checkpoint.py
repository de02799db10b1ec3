"""A checkpoint -> a state dict of model.RWKV and the sizes read from it; strict about every key. And back.

BlinkDL's .pth has the model's own names; the layouts of the hub are its versions' matter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file

from rwkv_core import weights, wrapping
from rwkv_core.errors import BadInput
from rwkv_core.files import replaced
from rwkv_core.rwkv.version import VERSIONS, Version
from rwkv_core.spec import ModelSpec
from rwkv_core.weights import Tensors, some

EPSILONS = ("layer_norm_epsilon", "layer_norm_eps", "norm_eps")  # of layer norms, as configurations call it
VARIANTS = {  # which no module here computes, though a version's names are among theirs
    "RWKV-4a/b (with tiny attention)": r"tiny_|\.att\.(qq|kk|vv|oo)\.",
    "RWKV-6 x060a (with a low-rank gate)": r"\.att\.gate_w[12]$",
    "RWKV-6 x060b/c (without a gate)": r"\.time_maa_rkvw_w[12]$",
    "RWKV-5/6 state-tuned (with a state to begin from)": r"\.time_state$",
    "RWKV-7a (with DeepEmbed)": r"\.ffn\.(s_emb|s_emb_x|s[012])\b",
    "RWKV-7 under names of before 28 November 2024": r"\.att\.(xx_r|ww_[bw][12]?|kk_s|ka_s|rk_s)$",
}


class Checkpoint(NamedTuple):
    """layout: what stood around the weights, as by wrapping.described."""

    tensors: Tensors
    spec: ModelSpec
    layout: str


def read(path: Path, shapes: Callable[[ModelSpec], Mapping[str, torch.Size]]) -> Checkpoint:
    """The weights under the model's names, and the model they describe. shapes: of all weights of such a model. Raises
    BadInput.
    """
    tensors, config, nest = weights.read(path)
    before = wrapping.prefix(path, tensors, "model." if any(name.endswith(".attn.r_k") for name in tensors) else "")
    tensors = {name.removeprefix(before): tensor for name, tensor in tensors.items()}
    version = _version(path, tensors)
    tensors = version.published(tensors)
    if config.get("tie_word_embeddings") and "emb.weight" in tensors:
        tensors.setdefault("head.weight", tensors["emb.weight"])
    spec = _describe(path, tensors, config, version)
    _check(path, tensors, shapes(spec), version)
    return Checkpoint(tensors, spec, wrapping.described(nest, before))


def cast(tensors: Tensors, version: Version, dtype: torch.dtype) -> Tensors:
    """Weights in `dtype`, but for those that a version keeps in float32."""
    return {name: t.to(torch.float32 if name.endswith(version.FLOAT32) else dtype) for name, t in tensors.items()}


def save(tensors: Tensors, spec: ModelSpec, version: Version, folder: Path) -> None:
    """Write config.json and model.safetensors (BlinkDL's names, cast to bfloat16) of an RWKV into `folder`."""
    with replaced(folder) as part:
        cast_down = cast(tensors, version, torch.bfloat16)
        save_file({name: tensor.contiguous() for name, tensor in cast_down.items()}, part / "model.safetensors")
        config = {**spec.architecture, "context_length": spec.context_length}
        (part / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def save_pth(tensors: Tensors, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """A file as BlinkDL's trainer writes it."""
    torch.save({name: tensor.to(dtype) for name, tensor in tensors.items()}, path)


def _version(path: Path, tensors: Tensors) -> Version:
    """Whose checkpoint it is: later versions are asked first, since they kept names of earlier ones."""

    def has(mark: str) -> bool:
        return any(re.search(mark, name) for name in tensors)

    variant = next((name for name, mark in VARIANTS.items() if has(mark)), "")
    version = next((version for version in VERSIONS if has(version.MARK)), None)
    if version and not variant:
        return version
    what = f"a checkpoint of {variant}" if variant else f"no RWKV checkpoint (it begins with {some(tensors)})"
    raise BadInput(f"{path}: this is {what}; only {', '.join(version.NAME for version in VERSIONS)} can be loaded")


def _describe(path: Path, tensors: Tensors, config: Mapping[str, object], version: Version) -> ModelSpec:
    blocks = {m[1] for name in tensors if (m := re.match(r"blocks\.(\d+)\.", name))}
    layers = len(blocks)
    if not blocks:
        raise BadInput(
            f"{path}: no name in it begins with blocks. (it begins with {some(tensors)}); save the model alone"
        )
    if lacking := [f"blocks.{i}" for i in range(layers) if str(i) not in blocks]:
        raise BadInput(f"{path}: lacks {lacking[0]}, and has blocks.{max(blocks, key=len)}; is it whole?")
    matrices = ("emb.weight", "blocks.0.att.key.weight", "blocks.0.ffn.key.weight")
    for name in matrices:
        if name not in tensors or tensors[name].ndim != 2:
            raise BadInput(f"{path}: no usable {name!r} in it; the sizes of the model cannot be read")
    epsilon = next((name for name in EPSILONS if name in config), EPSILONS[0])
    checked = {**config, "layer_norm_epsilon": _positive(path, config, epsilon, 1e-5)}
    try:
        sizes = version.sizes(tensors, checked)
    except (KeyError, IndexError, ValueError) as error:
        raise BadInput(f"{path}: the sizes of this {version.NAME} cannot be read ({error}); is it whole?") from error
    return ModelSpec(
        name=path.stem,
        family=version.FAMILY,
        label=path.stem,
        weights=str(path),
        parameters=sum(t.numel() for t in tensors.values()),
        context_length=int(_positive(path, config, "context_length", 1024)),
        architecture={**sizes, "num_hidden_layers": layers},
    )


def _positive(path: Path, config: Mapping[str, object], key: str, default: float) -> float:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise BadInput(f"{path / 'config.json'}: {key} is {value!r}, and must be a number above 0; download it again")
    return value


def _check(path: Path, tensors: Tensors, expected: Mapping[str, torch.Size], version: Version) -> None:
    """Whether the file fills a model key by key."""
    missing, surplus = sorted(expected.keys() - tensors), sorted(tensors.keys() - expected)
    if missing or surplus:
        parts = [f"lacks {some(missing)}"] * bool(missing) + [f"has unknown {some(surplus)}"] * bool(surplus)
        raise BadInput(
            f"{path}: this {version.NAME} checkpoint {' and '.join(parts)}; it is incomplete or another variant"
        )
    for name, shape in expected.items():
        if not tensors[name].is_floating_point():
            kind = str(tensors[name].dtype).removeprefix("torch.")
            raise BadInput(f"{path}: {name} is of type {kind}, and weights are floating-point numbers")
        if tensors[name].layout is not torch.strided or tensors[name].is_meta:
            raise BadInput(f"{path}: {name} is {'empty' if tensors[name].is_meta else 'sparse'}; save all its numbers")
        if tensors[name].squeeze().shape != torch.empty(shape, device="meta").squeeze().shape:
            raise BadInput(f"{path}: {name} has shape {list(tensors[name].shape)} where {list(shape)} fits the others")
        tensors[name] = tensors[name].reshape(shape)
