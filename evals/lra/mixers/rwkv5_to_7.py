"""The time mixing of RWKV-5, 6 (arXiv:2404.05892, secs. 3 and 4) and 7 (arXiv:2503.14456, sec. 4), rwkv_core's own; in
both directions, two of half the width, as other recurrent mixers are.

RWKV-7's layers mix their values with the first layer's. The blocks of this encoder hand nothing on, so that each has
the first layer's form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from evals.lra.mixers.shape import Shape, each_way
from rwkv_core.rwkv import heads, v5, v6, v7

CHANNELS_A_RANK = 8  # of the width to a dimension of the low-rank matrices, about as the published models have it


class Mixer(nn.Module):
    """A base: the class of a version says how its time mixing begins. Matrices begin as torch's layers do, where the
    author's zeros would learn later.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        ways = 2 if shape.bidirectional else 1
        inner, rank = shape.width // ways, max(4, shape.width // CHANNELS_A_RANK)
        self.shape = {
            "hidden_size": shape.width,
            "attention_hidden_size": inner,
            "head_size": inner // max(1, shape.heads // ways),
            **dict.fromkeys(("mix_low_rank_dim", *v7.LOW_RANK), rank),
        }
        self.ways = nn.ModuleList(self.initialised(self.shape, shape.layer, shape.layers) for _ in range(ways))
        for p in self.ways.parameters():
            if p.dim() > 1 and not p.any():
                nn.init.uniform_(p, -(len(p) ** -0.5), len(p) ** -0.5)  # [in, out], as torch's linear layers

    @staticmethod
    def initialised(shape: Mapping[str, Any], layer: int, layers: int) -> nn.Module:
        """Time mixing as training begins."""
        raise NotImplementedError

    @staticmethod
    def shared(way: Any) -> Any:
        """What a block is handed in the first layer."""
        return None

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        return torch.stack(each_way(self.ways, self._run, x, valid)).sum(0)

    def _run(self, way: nn.Module, x: Tensor) -> Tensor:
        state = heads.empty(self.shape, len(x), x)
        y: Tensor = way(x, state.att_x, state.wkv, self.shared(way), None, "auto")[0]
        return y


class V5(Mixer):
    @staticmethod
    def initialised(shape: Mapping[str, Any], layer: int, layers: int) -> nn.Module:
        way = v5.TimeMix(shape, 0)
        v5.set_time_mix_vectors(way, layer, layers)
        return way

    @staticmethod
    def shared(way: v5.TimeMix) -> Sequence[Tensor]:
        return [-torch.exp(way.time_decay.float())]


class V6(Mixer):
    @staticmethod
    def initialised(shape: Mapping[str, Any], layer: int, layers: int) -> nn.Module:
        way = v6.TimeMix(shape)
        v6.set_time_mix_vectors(way, layer, layers)
        v6.set_low_rank(way, torch.default_generator)
        return way


class V7(Mixer):
    @staticmethod
    def initialised(shape: Mapping[str, Any], layer: int, layers: int) -> nn.Module:
        way = v7.TimeMix(shape, 0)
        v7.set_time_mix_vectors(way, layer, layers)
        v7.set_low_rank(way, torch.default_generator)
        return way
