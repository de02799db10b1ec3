"""FNet: the real part of a Fourier transform over tokens and channels, without weights (arXiv:2105.03824, eq. 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evals.lra.mixers.shape import Shape


class Mixer(nn.Module):
    """Over the length that it was built for, so that the answer does not depend on how far a batch is padded. A shorter
    row loses the frequencies beyond its own tokens, which FNet's own code leaves in its padding.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.length = shape.length

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        tokens = x.shape[1]
        padded = F.pad(x * valid[..., None], (0, 0, 0, self.length - tokens))
        return torch.fft.fft2(padded, dim=(1, 2), norm="ortho").real[:, :tokens]
