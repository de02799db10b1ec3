"""Names and specs -> a model on a device. The only list of models is configs/models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rwkv_core import finite, machine
from rwkv_core.errors import BadInput, Unsupported
from rwkv_core.models import check_size, find, local, offline
from rwkv_core.spec import LanguageModel, ModelSpec

DTYPES = ("float32", "bfloat16", "float16")


def load(name_or_spec: str | ModelSpec, *, device: str = "cpu", dtype: str = "float32") -> LanguageModel:
    """A model ready to run: our RWKV for that family, transformers for the others.

    A name stands for its pretrained weights; a ModelSpec says where they come from. Raises BadInput
    for an unknown model or unusable weights, NaN and infinity among them, Unsupported for a device that
    is not here, MemoryError before anything is allocated where the weights alone cannot fit.
    """
    spec = find(name_or_spec) if isinstance(name_or_spec, str) else name_or_spec
    if spec.family == "encoder":
        raise BadInput(f"{spec.name} is no language model; the experiment lra builds it")
    if dtype not in DTYPES:
        raise BadInput(f"unknown dtype {dtype!r}: one of {', '.join(DTYPES)}")
    torch_dtype: torch.dtype = getattr(torch, dtype)
    _check_room(spec, device, torch_dtype)
    model = _load_rwkv(spec, device, dtype) if spec.family == "rwkv4" else _load_transformer(spec, device, torch_dtype)
    if spec.seed is None:
        finite.check_weights(model)
    return model


def _load_transformer(spec: ModelSpec, device: str, dtype: torch.dtype) -> LanguageModel:
    from rwkv_core import hf  # here, because transformers takes seconds to import

    return (hf.pretrained if spec.seed is None else hf.build)(spec, device, dtype)


def _load_rwkv(spec: ModelSpec, device: str, dtype: str) -> LanguageModel:
    from rwkv_core import init, weights
    from rwkv_core.model import HALF_RESCALE_EVERY, RWKV

    if spec.seed is None:
        path = local(spec) or _download(spec)
        model = RWKV.from_checkpoint(path, device=device, dtype=dtype)
        check_size(spec, path, model.spec.parameters)
        model.spec = spec
        model.revision = None if local(spec) else path.name  # the hub's cache names folders so
        return model
    model = RWKV.of(spec)
    model.load_state_dict(weights.cast(model.state_dict(), getattr(torch, dtype)), assign=True)
    model = model.to_empty(device=device)
    fill = init.paper_init if spec.fresh else init.random_fill
    fill(model, spec.seed)
    if dtype == "float16":
        model.rescale(HALF_RESCALE_EVERY)
    return model.eval()


def _download(spec: ModelSpec) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        wanted = ["*.json", "*.safetensors", "*.bin"]
        return Path(snapshot_download(spec.repo, revision=spec.revision, allow_patterns=wanted))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise BadInput(offline(spec, error)) from error


def _check_room(spec: ModelSpec, device: str, dtype: torch.dtype) -> None:
    if device == "cuda":
        if not torch.cuda.is_available():
            raise Unsupported("no CUDA device on this machine")
        free: Any = torch.cuda.mem_get_info()[0]
    elif device == "cpu":
        free = machine.free_memory()
    else:
        raise BadInput(f"unknown device {device!r}: cpu or cuda")
    needed = spec.parameters * dtype.itemsize
    if free is not None and needed > free:
        raise MemoryError(f"{spec.name}: {needed / 1e9:.1f} GB of weights, {free / 1e9:.1f} GB free on {device}")
