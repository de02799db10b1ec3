"""LSTM and GRU as torch has them, over the valid tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evals.lra.mixers.shape import Shape, each_way


class _Recurrent(nn.Module):
    kind: type[nn.Module]

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        ways = 2 if shape.bidirectional else 1
        self.ways = nn.ModuleList(self.kind(shape.width, shape.width // ways, batch_first=True) for _ in range(ways))

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        return torch.cat(each_way(self.ways, lambda cell, x: cell(x)[0], x, valid), -1)


class LSTM(_Recurrent):
    kind = nn.LSTM


class GRU(_Recurrent):
    kind = nn.GRU
