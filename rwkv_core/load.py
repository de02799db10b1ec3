"""Names and specs -> a model on a device. The only list of models is configs/models."""

from __future__ import annotations

import torch

from rwkv_core import machine
from rwkv_core.errors import BadInput, Unsupported
from rwkv_core.models import check_room, find
from rwkv_core.runtimes import RUNTIMES
from rwkv_core.spec import LanguageModel, ModelSpec

DTYPES = ("float32", "bfloat16", "float16")


def load(name_or_spec: str | ModelSpec, *, device: str = "cpu", dtype: str = "float32") -> LanguageModel:
    """A model ready to run, in the spec's runtime.

    A name stands for its pretrained weights; a ModelSpec says where they come from. Raises BadInput
    for an unknown model or unusable weights, NaN and infinity among them, Unsupported for a device or runtime that
    is not here or cannot run the model, MemoryError before anything is allocated where the weights alone cannot fit.
    """
    spec = find(name_or_spec) if isinstance(name_or_spec, str) else name_or_spec
    if dtype not in DTYPES:
        raise BadInput(f"unknown dtype {dtype!r}: one of {', '.join(DTYPES)}")
    torch_dtype: torch.dtype = getattr(torch, dtype)
    check_room(spec, spec.parameters * torch_dtype.itemsize, free_memory(device), f"on {device}")
    return RUNTIMES[spec.runtime](spec, device, torch_dtype)


def free_memory(device: str) -> int | None:
    """Bytes that this process may still take on a device, None where the system does not tell. Raises Unsupported where
    there is no such device, BadInput where there never is.
    """
    if device == "cpu":
        return machine.free_memory()
    if device != "cuda":
        raise BadInput(f"unknown device {device!r}: cpu or cuda")
    if not torch.cuda.is_available():
        raise Unsupported("no CUDA device on this machine")
    return int(torch.cuda.mem_get_info()[0])
