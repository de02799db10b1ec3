"""QRNN: gates by a convolution over the last tokens, then fo-pooling (arXiv:1611.01576, eqs. 1-4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evals.lra.mixers.shape import Shape, each_way, scan

TOKENS = 2  # the convolution sees so many


class Mixer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        ways = 2 if shape.bidirectional else 1
        self.ways = nn.ModuleList(
            nn.Conv1d(shape.width, 3 * shape.width // ways, TOKENS, padding=TOKENS - 1) for _ in range(ways)
        )

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        return torch.cat(each_way(self.ways, _run, x, valid), -1)


def _run(gates: nn.Module, x: Tensor) -> Tensor:
    z, f, o = gates(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2).chunk(3, -1)
    f = torch.sigmoid(f)
    return torch.sigmoid(o) * scan(f, (1 - f) * torch.tanh(z))
