"""Checkpoints on disk -> tensors by name, whatever model they are of; and whole folders of them.

Nothing here runs what a file contains: pickles are opened with weights_only=True.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from rwkv_core import utf8, wrapping
from rwkv_core.errors import BadInput, out_of_memory

Tensors = dict[str, Tensor]

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


class Weights(NamedTuple):
    """tensors: by name. config: of the folder's config.json. nest: the keys that they lay under (wrapping.unnested)."""

    tensors: Tensors
    config: dict[str, object]
    nest: str


def read(path: Path) -> Weights:
    """The tensors of a file, or of a folder as transformers writes it. Raises BadInput."""
    if path.is_dir():
        tensors, nest = _read_folder(path)
        config = path / "config.json"
        return Weights(tensors, _read_json(config) if config.is_file() else {}, nest)
    if not path.is_file():
        raise BadInput(f"{path}: no such checkpoint file or folder; give the path of a .pth, .safetensors or folder")
    tensors, nest = _read_file(path)
    return Weights(tensors, {}, nest)


def some(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


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
    message = str(error).lower()
    with path.open("rb") as file:
        later = file.read(1) == b"\x80" and "unsupported operand" in message
    return later or "unsupported global" in message or "torchscript" in message


def _read_json(path: Path) -> dict[str, object]:
    try:
        loaded = json.loads(utf8.read(path))
    except ValueError as error:
        raise BadInput(f"{path}: not valid JSON ({error}); download it again") from error
    if not isinstance(loaded, dict):
        raise BadInput(f"{path}: no JSON object; download it again")
    return loaded
