"""The time mixing of RWKV-5, 6 (arXiv:2404.05892, secs. 3 and 4) and 7 (arXiv:2503.14456, sec. 4), rwkv_core's own; in
both directions, two of half the width, as other recurrent mixers are.

RWKV-7's layers mix their values with the first layer's. The blocks of this encoder hand nothing on, so that each has
the first layer's form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from evals.lra.mixers.shape import Shape, each_way
from rwkv_core.rwkv import heads, v5, v6, v7
from rwkv_core.rwkv.rows import Rows

CHANNELS_A_RANK = 8  # of the width to a dimension of the low-rank matrices, about as the published models have it


class Mixer(nn.Module):
    """initialised: (shape, layer, layers) -> time mixing as training begins, but for matrices, which begin as torch's
    layers do, where the author's zeros would learn later. shared: what time mixing is handed in the first layer.
    """

    def __init__(
        self,
        shape: Shape,
        initialised: Callable[[Mapping[str, Any], int, int], nn.Module],
        shared: Callable[[Any], Any] = lambda way: None,
    ) -> None:
        super().__init__()
        ways = 2 if shape.bidirectional else 1
        inner, rank = shape.width // ways, max(4, shape.width // CHANNELS_A_RANK)
        self.shape = {
            "hidden_size": shape.width,
            "attention_hidden_size": inner,
            "head_size": inner // max(1, shape.heads // ways),
            **dict.fromkeys(("mix_low_rank_dim", *v7.LOW_RANK), rank),
        }
        self.shared = shared
        self.ways = nn.ModuleList(initialised(self.shape, shape.layer, shape.layers) for _ in range(ways))
        for p in self.ways.parameters():
            if p.dim() > 1 and not p.any():
                nn.init.uniform_(p, -(len(p) ** -0.5), len(p) ** -0.5)  # [in, out], as torch's linear layers

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        return torch.stack(each_way(self.ways, self._run, x, valid)).sum(0)

    def _run(self, way: nn.Module, x: Tensor) -> Tensor:
        state = heads.empty(self.shape, len(x), x)
        y: Tensor = way(x, state.att_x, state.wkv, self.shared(way), Rows(), "auto")[0]
        return y


def rwkv5(shape: Shape) -> Mixer:
    return Mixer(shape, _v5, lambda way: [-torch.exp(way.time_decay.float())])


def rwkv6(shape: Shape) -> Mixer:
    return Mixer(shape, _v6)


def rwkv7(shape: Shape) -> Mixer:
    return Mixer(shape, _v7)


def _v5(shape: Mapping[str, Any], layer: int, layers: int) -> nn.Module:
    way = v5.TimeMix(shape, 0)
    v5.set_time_mix_vectors(way, layer, layers)
    return way


def _v6(shape: Mapping[str, Any], layer: int, layers: int) -> nn.Module:
    way = v6.TimeMix(shape)
    v6.set_time_mix_vectors(way, layer, layers)
    v6.set_low_rank(way, torch.default_generator)
    return way


def _v7(shape: Mapping[str, Any], layer: int, layers: int) -> nn.Module:
    way = v7.TimeMix(shape, 0)
    v7.set_time_mix_vectors(way, layer, layers)
    v7.set_low_rank(way, torch.default_generator)
    return way
