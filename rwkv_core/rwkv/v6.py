"""RWKV-6 (arXiv:2404.05892, "Finch", sec. 4): token shift and decay depend on the text. Names of weights are those of
BlinkDL's checkpoints.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rwkv_core.linear import linear, matmul
from rwkv_core.rwkv import heads, layouts, v4, v5
from rwkv_core.rwkv.mixing import squared_relu_
from rwkv_core.rwkv.rows import Rows
from rwkv_core.wkv.wkv6 import WKV6, wkv6

NAME = "RWKV-6"
FAMILY = "rwkv6"
MODEL_TYPE = "rwkv6"
MARK = r"\.(att|attention)\.time_maa_"
FLOAT32: tuple[str, ...] = (".time_decay", ".time_faaaa")
RESCALE_EVERY = 6
HUB_NAMES = v4.HUB_NAMES
OPERATOR = WKV6
MIXED = 5  # inputs with shares of their own: of the decay, key, value, receptance and gate
LARGEST_LOG_RATE = 10.0  # exp(-exp(10)) is 0 in every type, and so is its slope

empty = heads.empty


class TimeMix(nn.Module):
    """The attention-like sublayer: W_o (norm(wkv) * silu(g)), each of its inputs mixed with the token before by shares
    that the token itself decides on.
    """

    UNDECAYED = (*v5.TimeMix.UNDECAYED, "time_maa_w1", "time_maa_w2", "time_decay_w1", "time_decay_w2")

    def __init__(self, shape: Mapping[str, Any]) -> None:
        super().__init__()
        width, inner = shape["hidden_size"], heads.width(shape)
        mixing, decay = shape["mix_low_rank_dim"], shape["decay_low_rank_dim"]
        self.heads = heads.count(shape)
        self.time_maa_x = nn.Parameter(torch.empty(1, 1, width))
        self.time_maa_w = nn.Parameter(torch.empty(1, 1, width))
        self.time_maa_k = nn.Parameter(torch.empty(1, 1, width))
        self.time_maa_v = nn.Parameter(torch.empty(1, 1, width))
        self.time_maa_r = nn.Parameter(torch.empty(1, 1, width))
        self.time_maa_g = nn.Parameter(torch.empty(1, 1, width))
        self.time_maa_w1 = nn.Parameter(torch.empty(width, MIXED * mixing))
        self.time_maa_w2 = nn.Parameter(torch.empty(MIXED, mixing, width))
        self.time_decay = nn.Parameter(torch.empty(1, 1, inner))
        self.time_decay_w1 = nn.Parameter(torch.empty(width, decay))
        self.time_decay_w2 = nn.Parameter(torch.empty(decay, inner))
        self.time_faaaa = nn.Parameter(torch.empty(self.heads, shape["head_size"]))
        self.key = nn.Linear(width, inner, bias=False)
        self.value = nn.Linear(width, inner, bias=False)
        self.receptance = nn.Linear(width, inner, bias=False)
        self.gate = nn.Linear(width, inner, bias=False)
        self.output = nn.Linear(inner, width, bias=False)
        self.ln_x = heads.norm(shape)

    def forward(
        self, x: Tensor, last: Tensor, state: Tensor, shared: None, rows: Rows, impl: str
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        """x [B, T, C] or [B, C] -> output like x, the input to shift in next, the state, and nothing shared."""
        x_w, x_k, x_v, x_r, x_g = self._mixed(x, last, rows)
        decay = self.time_decay.view(-1) + matmul(torch.tanh(matmul(x_w, self.time_decay_w1)), self.time_decay_w2)
        w = -torch.exp(decay.float().clamp(max=LARGEST_LOG_RATE))
        inputs = (
            linear(x_r, self.receptance.weight),
            w,
            linear(x_k, self.key.weight),
            linear(x_v, self.value.weight),
        )
        r, w, k, v = (heads.split(part, self.heads) for part in inputs)
        call = functools.partial(wkv6, self.time_faaaa.float(), impl=impl)
        y, state = rows.scan(call, (r, w, k, heads.roomy(v)), state)
        out = heads.joined(y, self.ln_x, x) * F.silu(linear(x_g, self.gate.weight))
        return linear(out, self.output.weight), rows.at_end(x, last), state, None

    def _mixed(self, x: Tensor, last: Tensor, rows: Rows) -> Iterator[Tensor]:
        """The input of the decay, key, value, receptance and gate: x + (shifted - x)(maa + its low-rank part)."""
        groups, rank, _ = self.time_maa_w2.shape
        (x_x,) = rows.mix(x, last, (self.time_maa_x,))
        hidden = torch.tanh(matmul(x_x, self.time_maa_w1))
        parts = matmul(hidden.view(-1, groups, rank).transpose(0, 1), self.time_maa_w2)
        fixed = (self.time_maa_w, self.time_maa_k, self.time_maa_v, self.time_maa_r, self.time_maa_g)  # the order of w2
        return rows.mix(x, last, fixed, parts=parts)


class ChannelMix(nn.Module):
    """The feed-forward sublayer: sigmoid(r) * W_v max(k, 0)^2, as RWKV-4's; the shares are the previous token's."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.time_maa_k = nn.Parameter(torch.empty(1, 1, width))
        self.time_maa_r = nn.Parameter(torch.empty(1, 1, width))
        self.key = nn.Linear(width, inner, bias=False)
        self.receptance = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, last: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        """x [B, T, C] or [B, C] -> output like x and the input to shift in next."""
        mixed = rows.mix(x, last, (self.time_maa_k, self.time_maa_r))
        k, r = map(linear, mixed, (self.key.weight, self.receptance.weight))
        return torch.sigmoid_(r) * linear(squared_relu_(k), self.value.weight), rows.at_end(x, last)


def Block(shape: Mapping[str, Any], layer: int) -> heads.Block:
    """One layer."""
    ffn = ChannelMix(shape["hidden_size"], shape["intermediate_size"])
    return heads.Block(shape, layer, TimeMix(shape), ffn)


def begin(blocks: Sequence[Any]) -> None:
    """The blocks share nothing."""


def published(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a file under this module's names."""
    return layouts.from_hub(tensors, HUB_NAMES)


def sizes(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """The model's shape, read from the weights of block 0."""
    head_size = heads.size(tensors["blocks.0.att.time_faaaa"])
    return {
        **heads.sizes(tensors, config, MODEL_TYPE, head_size),
        "mix_low_rank_dim": tensors["blocks.0.att.time_maa_w1"].shape[1] // MIXED,
        "decay_low_rank_dim": tensors["blocks.0.att.time_decay_w1"].shape[1],
    }


@torch.no_grad()
def initialise(block: Any, layer: int, layers: int, generator: torch.Generator) -> None:
    """A block as training begins, as RWKV-LM's x060 does it."""
    set_vectors(block, layer, layers)
    v5.initialise_matrices(block, generator)
    set_low_rank(block.att, generator)


@torch.no_grad()
def set_low_rank(att: TimeMix, generator: torch.Generator) -> None:
    """Shifts and decays do not depend on the text yet."""
    for first, second in ((att.time_maa_w1, att.time_maa_w2), (att.time_decay_w1, att.time_decay_w2)):
        first.zero_()
        second.uniform_(-0.01, 0.01, generator=generator)


@torch.no_grad()
def set_vectors(block: Any, layer: int, layers: int) -> None:
    """Decay, bonus and token-shift weights of one layer: RWKV-5's, the shares counted from the other end."""
    set_time_mix_vectors(block.att, layer, layers)
    ffn = block.ffn
    below, _ = heads.ramp(ffn.time_maa_k.shape[-1], ffn.time_maa_k.device)
    for share in (ffn.time_maa_k, ffn.time_maa_r):
        share.copy_(1 - below ** ((1 - layer / layers) ** 3))


@torch.no_grad()
def set_time_mix_vectors(att: TimeMix, layer: int, layers: int) -> None:
    """Those of time mixing alone, its norm's among them."""
    upward, downward = layer / max(1, layers - 1), 1 - layer / layers
    below, _ = heads.ramp(att.time_maa_x.shape[-1], att.time_maa_x.device)
    v5.set_decays(att, layer, layers)
    for share in (att.time_maa_x, att.time_maa_w, att.time_maa_k):
        share.copy_(1 - below**downward)
    att.time_maa_v.copy_(1 - (below**downward + 0.3 * upward))
    for share in (att.time_maa_r, att.time_maa_g):
        share.copy_(1 - below ** (0.5 * downward))
