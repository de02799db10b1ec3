"""What a model whose weights are torch's parameters says of them: a part of LanguageModel, the same for all."""

from __future__ import annotations

from torch import nn

from rwkv_core import fingerprint


class TorchModel(nn.Module):
    """A base of models. The class adds how they compute."""

    @property
    def parameter_count(self) -> int:
        """Numbers of all weights, tied ones once."""
        return sum(p.numel() for p in self.parameters())

    @property
    def parameter_bytes(self) -> int:
        """Bytes of all weights as they lie in memory."""
        return sum(p.nbytes for p in self.parameters())

    @property
    def itemsize(self) -> int:
        """Bytes of a number of the model's type, which its first weight, the embedding, has."""
        return next(self.parameters()).itemsize

    def fingerprint(self) -> str:
        """Of the weights: the same ones, the same fingerprint."""
        return fingerprint.of(self)
