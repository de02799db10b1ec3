"""What a model whose weights are torch's parameters says of them: a part of LanguageModel, the same for all."""

from __future__ import annotations

import torch
from torch import nn

from rwkv_core import fingerprint
from rwkv_core.linear import Int8Matrix


def arithmetic(module: nn.Module) -> torch.dtype:
    """The type that a module computes in, which its first weight in floating point has."""
    return next(p.dtype for p in module.parameters() if p.dtype.is_floating_point)


class TorchModel(nn.Module):
    """A base of models. The class adds how they compute."""

    @property
    def parameter_count(self) -> int:
        """Numbers of all weights, tied ones once; the scales of int8 are none."""
        scales = sum(module.scales.numel() for module in self.modules() if isinstance(module, Int8Matrix))
        return sum(p.numel() for p in self.parameters()) - scales

    @property
    def parameter_bytes(self) -> int:
        """Bytes of all weights as they lie in memory."""
        return sum(part.nbytes for p in self.parameters() for part in fingerprint.parts(p))

    @property
    def itemsize(self) -> int:
        """Bytes of a number of the type that the model computes in."""
        return arithmetic(self).itemsize

    @property
    def quantised(self) -> bool:
        """Whether some weights take fewer bits than what is computed with them."""
        return any(not part.is_floating_point() for p in self.parameters() for part in fingerprint.parts(p))

    def fingerprint(self) -> str:
        """Of the weights: the same ones, the same fingerprint."""
        return fingerprint.of(self)
