"""RWKV-4's time mixing (arXiv:2305.13048, eqs. 11-17), rwkv_core's own; in both directions, two of half
the width, as other recurrent mixers are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evals.lra.mixers.shape import Shape, each_way
from rwkv_core.rwkv.rows import Rows
from rwkv_core.rwkv.v4 import TimeMix, set_time_mix_vectors
from rwkv_core.wkv.wkv4 import initial_state


class Mixer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        ways = 2 if shape.bidirectional else 1
        self.ways = nn.ModuleList(_fresh(shape, shape.width // ways) for _ in range(ways))

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        return torch.stack(each_way(self.ways, _run, x, valid)).sum(0)


def _run(way: TimeMix, x: Tensor) -> Tensor:
    start = initial_state(len(x), len(way.time_decay), x.device, torch.float32)
    y, _, _ = way(x, torch.zeros_like(x[:, 0]), start, -torch.exp(way.time_decay.float()), Rows(), "auto")
    return y


def _fresh(shape: Shape, inner: int) -> TimeMix:
    """Vectors as the paper's initialisation has them; matrices as torch's layers, where its zeros would learn later."""
    way = TimeMix(shape.width, inner)
    set_time_mix_vectors(way, shape.layer, shape.layers)
    return way
