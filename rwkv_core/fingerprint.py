"""A short name for weights that lie in memory."""

from __future__ import annotations

import hashlib

from torch import Tensor, nn

DIGITS = 16
SAMPLE = 4096  # values of a parameter that are read


def of(module: nn.Module) -> str:
    """A hash of every parameter's name, shape and up to `SAMPLE` of its values in float32: same weights, same hash."""
    digest = hashlib.sha256()
    for name, part in ((name, part) for name, p in module.named_parameters() for part in parts(p)):
        flat = part.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // SAMPLE)].float().cpu()
        digest.update(f"{name}{tuple(part.shape)}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()[:DIGITS]


def parts(p: Tensor) -> list[Tensor]:
    """The tensors of plain numbers that a parameter is made of: itself, or several where torchao has made it."""
    if not hasattr(p, "__tensor_flatten__"):
        return [p]
    names, _ = p.__tensor_flatten__()
    return [part for name in names for part in parts(getattr(p, name))]
