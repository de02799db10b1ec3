"""Checkpoints on disk -> a state dict of model.RWKV and the sizes read from it; strict about every key.

Two layouts: BlinkDL's .pth, whose names are the model's own, and transformers' RwkvForCausalLM.
Nothing here runs what a file contains: pickles are opened with weights_only=True.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rwkv_core import utf8, wrapping
from rwkv_core.errors import BadInput, out_of_memory
from rwkv_core.spec import LanguageModel, ModelSpec

Tensors = dict[str, Tensor]

# Keys that only one version has. Asked in this order, since later versions kept some of the earlier names.
VERSIONS = {
    "RWKV-7": r"\.att\.r_k$",
    "RWKV-6": r"\.att\.(time_maa_|x_maa)|\.attention\.time_maa_",
    "RWKV-5": r"\.att\.(ln_x\.|time_faaaa|gate\.)|\.attention\.(ln_x\.|time_faaaa|gate\.)",
    "RWKV-4a/b (with tiny attention)": r"tiny_|\.att\.(qq|kk|vv|oo)\.",
    "RWKV-4": r"\.att\.time_first$|\.attention\.time_first$",
}

# transformers' names -> ours.
RENAMES = (
    (r"^rwkv\.", ""),
    (r"^embeddings\.", "emb."),
    (r"\.pre_ln\.", ".ln0."),
    (r"\.attention\.", ".att."),
    (r"\.feed_forward\.", ".ffn."),
    (r"\.time_mix_key$", ".time_mix_k"),
    (r"\.time_mix_value$", ".time_mix_v"),
    (r"\.time_mix_receptance$", ".time_mix_r"),
    (r"^head\.", "unembed."),
)

REFUSED = (
    "refused, since this pickle holds more than tensors and would run code; "
    "convert it to .safetensors where you trust it"
)

FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


class Checkpoint(NamedTuple):
    """layout: what stood around the weights, as by wrapping.described."""

    tensors: Tensors
    spec: ModelSpec
    layout: str


def read(path: Path, shapes: Callable[[ModelSpec], Mapping[str, torch.Size]]) -> Checkpoint:
    """The weights under the model's names, and the model they describe. shapes: of all weights of such a model. Raises
    BadInput.
    """
    config: dict[str, object] = {}
    if path.is_dir():
        tensors, nest = _read_folder(path)
        if (path / "config.json").is_file():
            config = _read_json(path / "config.json")
    elif path.is_file():
        tensors, nest = _read_file(path)
    else:
        raise BadInput(f"{path}: no such checkpoint file or folder; give the path of a .pth, .safetensors or folder")
    before = wrapping.prefix(path, tensors)
    tensors = {name.removeprefix(before): tensor for name, tensor in tensors.items()}
    version = next((name for name, key in VERSIONS.items() if any(re.search(key, k) for k in tensors)), None)
    if version != "RWKV-4":
        what = f"a {version} checkpoint" if version else f"no RWKV checkpoint (it begins with {_some(tensors)})"
        raise BadInput(f"{path}: this is {what}; only RWKV-4 can be loaded")
    tensors = {_rename(name): tensor for name, tensor in tensors.items()}
    if config.get("tie_word_embeddings") and "emb.weight" in tensors:
        tensors.setdefault("unembed.weight", tensors["emb.weight"])
    spec = _describe(path, tensors, config)
    _check(path, tensors, shapes(spec))
    return Checkpoint(tensors, spec, wrapping.described(nest, before))


def cast(tensors: Tensors, dtype: torch.dtype) -> Tensors:
    """Weights in `dtype`, the decay and the bonus in float32: they stand in an exponent."""
    keep = (".time_decay", ".time_first")
    return {name: t.to(torch.float32 if name.endswith(keep) else dtype) for name, t in tensors.items()}


def save(tensors: Tensors, spec: ModelSpec, folder: Path) -> None:
    """Write config.json and model.safetensors (BlinkDL's names, cast to bfloat16) of an RWKV into `folder`."""
    with replaced(folder) as part:
        cast_down = cast(tensors, torch.bfloat16)
        named = {re.sub("^unembed", "head", name): tensor.contiguous() for name, tensor in cast_down.items()}
        save_file(named, part / "model.safetensors")
        config = {**spec.architecture, "context_length": spec.context_length}
        (part / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


@contextlib.contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """A new folder to write into, which takes the place of `folder` when all of it is written."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    yield part
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def fingerprint(model: LanguageModel) -> str:
    """A hash of every parameter's name, shape and up to 4096 of its values, in float32: same weights, same hash."""
    digest = hashlib.sha256()
    for name, p in model.named_parameters():
        flat = p.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 4096)].float().cpu()
        digest.update(f"{name}{tuple(p.shape)}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()[:16]


def _read_folder(path: Path) -> tuple[Tensors, str]:
    for name in FOLDER_FILES:
        if not (path / name).is_file():
            continue
        if not name.endswith(".index.json"):
            return _read_file(path / name)
        tensors: Tensors = {}
        nest = ""
        weight_map = _read_json(path / name).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
            raise BadInput(f"{path / name}: no weight_map of file names in it; download the folder again")
        for shard in sorted(set(weight_map.values())):
            if not (path / shard).is_file():
                raise BadInput(f"{path}: {name} names {shard}, which is not there; download the folder again")
            part, nest = _read_file(path / shard)
            tensors |= part
        return tensors, nest
    raise BadInput(f"{path}: none of {', '.join(FOLDER_FILES)} in this folder")


def _read_file(path: Path) -> tuple[Tensors, str]:
    try:
        if path.stat().st_size == 0:
            raise BadInput(f"{path}: the file is empty; copy or download it again")
        if path.suffix == ".safetensors":
            return load_file(path), ""
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except BadInput:
        raise
    except Exception as error:  # a damaged pickle can make torch.load raise anything
        if out_of_memory(error):
            raise
        if isinstance(error, OSError) and error.strerror and error.errno != errno.EINVAL:  # sought before its beginning
            raise BadInput(f"{path}: cannot be read ({error.strerror})") from error
        if _holds_more_than_tensors(path, error):
            raise BadInput(f"{path}: {REFUSED}") from error
        raise BadInput(
            f"{path}: cannot be read as a checkpoint (truncated or damaged): copy or download it again"
        ) from error
    return wrapping.unnested(path, loaded)


def _holds_more_than_tensors(path: Path, error: Exception) -> bool:
    """Whether loading failed on a whole pickle: a class in it, instructions of a later protocol, or TorchScript."""
    said = str(error).lower()
    with path.open("rb") as file:
        later = file.read(1) == b"\x80" and "unsupported operand" in said
    return later or "unsupported global" in said or "torchscript" in said


def _read_json(path: Path) -> dict[str, object]:
    try:
        loaded = json.loads(utf8.read(path))
    except ValueError as error:
        raise BadInput(f"{path}: not valid JSON ({error}); download it again") from error
    if not isinstance(loaded, dict):
        raise BadInput(f"{path}: no JSON object; download it again")
    return loaded


def _rename(name: str) -> str:
    for pattern, ours in RENAMES:
        name = re.sub(pattern, ours, name)
    return name


def _describe(path: Path, tensors: Tensors, config: dict[str, object]) -> ModelSpec:
    blocks = {m[1] for name in tensors if (m := re.match(r"blocks\.(\d+)\.", name))}
    layers = len(blocks)
    if not blocks:
        raise BadInput(
            f"{path}: no name in it begins with blocks. (it begins with {_some(tensors)}); save the model alone"
        )
    if lacking := [f"blocks.{i}" for i in range(layers) if str(i) not in blocks]:
        raise BadInput(f"{path}: lacks {lacking[0]}, and has blocks.{max(blocks, key=len)}; is it whole?")
    matrices = ("emb.weight", "blocks.0.att.key.weight", "blocks.0.ffn.key.weight")
    for name in matrices:
        if name not in tensors or tensors[name].ndim != 2:
            raise BadInput(f"{path}: no usable {name!r} in it; the sizes of the model cannot be read")
    (vocab, width), (inner, _), (ffn, _) = (tensors[name].shape for name in matrices)
    return ModelSpec(
        name=path.stem,
        family="rwkv4",
        label=path.stem,
        weights=str(path),
        parameters=sum(t.numel() for t in tensors.values()),
        context_length=int(_positive(path, config, "context_length", 1024)),
        architecture={
            "model_type": "rwkv",
            "vocab_size": vocab,
            "hidden_size": width,
            "num_hidden_layers": layers,
            "attention_hidden_size": inner,
            "intermediate_size": ffn,
            "layer_norm_epsilon": _positive(path, config, "layer_norm_epsilon", 1e-5),
        },
    )


def _positive(path: Path, config: dict[str, object], key: str, default: float) -> float:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise BadInput(f"{path / 'config.json'}: {key} is {value!r}, and must be a number above 0; download it again")
    return value


def _check(path: Path, tensors: Tensors, wanted: Mapping[str, torch.Size]) -> None:
    """Whether the file fills a model key by key."""
    missing, surplus = sorted(wanted.keys() - tensors), sorted(tensors.keys() - wanted)
    if missing or surplus:
        parts = [f"lacks {_some(missing)}"] * bool(missing) + [f"has unknown {_some(surplus)}"] * bool(surplus)
        raise BadInput(f"{path}: this RWKV-4 checkpoint {' and '.join(parts)}; it is incomplete or another variant")
    for name, shape in wanted.items():
        if not tensors[name].is_floating_point():
            kind = str(tensors[name].dtype).removeprefix("torch.")
            raise BadInput(f"{path}: {name} is of type {kind}, and weights are floating-point numbers")
        if tensors[name].layout is not torch.strided or tensors[name].is_meta:
            raise BadInput(f"{path}: {name} is {'empty' if tensors[name].is_meta else 'sparse'}; save all its numbers")
        if tensors[name].squeeze().shape != torch.empty(shape, device="meta").squeeze().shape:
            raise BadInput(f"{path}: {name} has shape {list(tensors[name].shape)} where {list(shape)} fits the others")
        tensors[name] = tensors[name].reshape(shape)


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
