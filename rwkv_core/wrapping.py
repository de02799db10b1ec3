"""What training tools put around the weights of a checkpoint: prefixes before each name, mappings around them all."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from rwkv_core.errors import BadInput

PREFIXES = {
    "module.": "DistributedDataParallel, DeepSpeed",
    "_orig_mod.": "torch.compile",
    "_forward_module.": "Lightning's strategies",
    "model.": "a trainer's attribute",
}
NESTS = (
    "state_dict",
    "model_state_dict",
    "module",
    "model",
)  # keys under which files hold the weights beside an optimizer or an epoch


def unnested(path: Path, loaded: Any) -> tuple[dict[str, Tensor], str]:
    """The mapping from names to tensors that a loaded file holds or is, and under which keys: "state_dict > model".

    Raises BadInput where there is none, or more than one.
    """
    keys: list[str] = []
    while not (isinstance(loaded, dict) and loaded and all(isinstance(value, Tensor) for value in loaded.values())):
        inside = [key for key in NESTS if _holds_tensors(loaded, key)]
        if len(inside) > 1:
            raise BadInput(f"{path}: holds weights under {' and '.join(inside)}; save those that are meant alone")
        if not inside:
            raise BadInput(f"{path}: {_instead(loaded)}")
        keys += inside
        loaded = loaded[inside[0]]
    if odd := [key for key in loaded if not isinstance(key, str)]:
        raise BadInput(f"{path}: names one of its tensors {odd[0]!r}; a name is text")
    return loaded, " > ".join(keys)


def prefix(where: str | Path, names: Collection[str], base: str = "") -> str:
    """What training tools have put before every name: "module._orig_mod."; empty where nothing. base: what the model
    itself puts before some of its names, as OPT and LLaMA put "model.". Raises BadInput where only some have a prefix,
    or not the same.
    """
    common = ""
    while begins := sorted(wrapper for wrapper in PREFIXES if any(name.startswith(common + wrapper) for name in names)):
        one, *further = (f"'{common}{wrapper}'" for wrapper in begins)
        count = sum(name.startswith(common + begins[0]) for name in names)
        if not further and begins[0] == base and count < len(names):
            return common
        if further or count < len(names):
            conflict = f"others with {further[0]}" if further else f"the other {len(names) - count} do not"
            fault = f"{count} of its names begin with {one}, {conflict}"
            raise BadInput(f"{where}: {fault}; save the model's state dict alone")
        common += begins[0]
    return common.removesuffix(base)


def described(nest: str, before: str) -> str:
    """For a record: "nested under state_dict, names begin with module."; empty for bare weights."""
    parts = [f"nested under {nest}"] * bool(nest) + [f"names begin with {before}"] * bool(before)
    return ", ".join(parts)


def _holds_tensors(loaded: Any, key: str) -> bool:
    """Whether there is a mapping with tensors in it, or with one of the known keys around some."""
    inner = loaded.get(key) if isinstance(loaded, dict) else None
    if not isinstance(inner, dict):
        return False
    return any(isinstance(value, Tensor) for value in inner.values()) or any(_holds_tensors(inner, k) for k in NESTS)


def _instead(loaded: Any) -> str:
    if not isinstance(loaded, dict):
        return f"holds a {type(loaded).__name__}, not a mapping from names to tensors"
    if not loaded:
        return "holds an empty mapping, no weights"
    strange = [key for key, value in loaded.items() if not isinstance(value, Tensor)]
    if len(strange) < len(loaded):
        return f"holds {_some(strange)} among its weights, which are no tensors; save the weights alone"
    return f"holds a mapping of {_some(strange)}; weights are looked for in it as it is, or under {', '.join(NESTS)}"


def _some(names: Iterable[object]) -> str:
    texts = [str(name)[:40] for name in names]
    return ", ".join(texts[:3]) + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")
