"""Names and specs -> a model on a device. The only list of models is configs/models."""

from __future__ import annotations

from typing import Any

import torch

from rwkv_core import machine, quantise
from rwkv_core.dtypes import DTYPES, QUANTISED, computed
from rwkv_core.errors import BadInput, Unsupported
from rwkv_core.models import check_room, find
from rwkv_core.runtimes import RUNTIMES
from rwkv_core.spec import LanguageModel, ModelSpec


def load(name_or_spec: str | ModelSpec, *, device: str = "cpu", dtype: str = "float32") -> LanguageModel:
    """A model ready to run, in the spec's runtime.

    A name stands for its pretrained weights; a ModelSpec says where they come from. Those of int8 and int4 are read in
    the type of the arithmetic, and need that much memory in passing. Raises BadInput for an unknown model or unusable
    weights, NaN and infinity among them, Unsupported for a device, runtime or type that is not here or cannot run the
    model, MemoryError before anything is allocated where the weights alone cannot fit.
    """
    spec = find(name_or_spec) if isinstance(name_or_spec, str) else name_or_spec
    if dtype not in DTYPES:
        raise BadInput(f"unknown dtype {dtype!r}: one of {', '.join(DTYPES)}")
    torch_dtype: torch.dtype = getattr(torch, computed(dtype, device))
    check_room(spec, spec.parameters * torch_dtype.itemsize, free_memory(device), f"on {device}")
    if dtype not in QUANTISED:
        return RUNTIMES[spec.runtime](spec, device, torch_dtype)
    quantise.check(spec, dtype, device)
    model: Any = RUNTIMES[spec.runtime](spec, device, torch_dtype)
    quantise.quantise(model, spec.width, dtype, device)
    return model


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
