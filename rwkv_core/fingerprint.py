"""A short name for weights that lie in memory."""

from __future__ import annotations

import hashlib

from torch import nn

DIGITS = 16
SAMPLE = 4096  # values of a parameter that are read


def of(module: nn.Module) -> str:
    """A hash of every parameter's name, shape and up to `SAMPLE` of its values in float32: same weights, same hash."""
    digest = hashlib.sha256()
    for name, p in module.named_parameters():
        flat = p.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // SAMPLE)].float().cpu()
        digest.update(f"{name}{tuple(p.shape)}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()[:DIGITS]
