"""FNet: the real part of a Fourier transform over tokens and channels, without weights (arXiv:2105.03824, eq. 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evals.lra.mixers.shape import Shape


class Mixer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        return torch.fft.fft2(x * valid[..., None], dim=(1, 2), norm="ortho").real
