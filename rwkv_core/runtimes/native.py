"""This project's own code: RWKV."""

from __future__ import annotations

from pathlib import Path

import torch

from rwkv_core import finite, world
from rwkv_core.errors import BadInput, Unsupported
from rwkv_core.models import check_shape, check_size, local, offline
from rwkv_core.rwkv import checkpoint, init, version
from rwkv_core.rwkv.model import RWKV
from rwkv_core.spec import ModelSpec


def load(spec: ModelSpec, device: str, dtype: torch.dtype) -> RWKV:
    """The model on the device. Raises BadInput for unusable weights, NaN and infinity among them, Unsupported for one
    that is no RWKV.
    """
    if spec.architecture["model_type"] not in {candidate.MODEL_TYPE for candidate in version.VERSIONS}:
        raise Unsupported(f"{spec.name} is no RWKV, which is all that `runtime: {spec.runtime}` runs; leave it out")
    name = str(dtype).removeprefix("torch.")
    if spec.seed is None:
        path = local(spec) or _downloaded(spec)
        model = RWKV.from_checkpoint(path, device=device, dtype=name)
        check_size(spec, path, model.spec.parameters)
        check_shape(spec, path, model.spec.architecture)
        model.spec = spec
        folder = path.parents[spec.hub[1].count("/")] if path.is_file() else path
        model.revision = None if local(spec) else folder.name  # the hub's cache names folders so
        finite.check_weights(spec.name, model)
        return model
    model = RWKV.of(spec)
    model.load_state_dict(checkpoint.cast(model.state_dict(), model.version, dtype), assign=True)
    model = model.to_empty(device=device)
    (init.fresh if spec.fresh else init.random)(model, spec.seed)
    if dtype == torch.float16:
        model.rescale(model.version.RESCALE_EVERY)
    return model.eval()


def _downloaded(spec: ModelSpec) -> Path:
    """The folder of the hub's cache that holds the spec's repository at its revision, or the one file that it names."""
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repo, file = spec.hub
    try:
        if file:
            return Path(hf_hub_download(repo, file, revision=spec.revision))
        patterns = ["*.json", "*.safetensors", "*.bin", world.PATTERN]
        return Path(snapshot_download(repo, revision=spec.revision, allow_patterns=patterns))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise BadInput(offline(spec, error)) from error
