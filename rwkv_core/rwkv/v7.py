"""RWKV-7 (arXiv:2503.14456, "Goose", sec. 4): a state that is edited, not only added to. Names of weights are those of
BlinkDL's checkpoints.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rwkv_core.fill import orthogonal
from rwkv_core.linear import linear, matmul
from rwkv_core.rwkv import heads, layouts, v5
from rwkv_core.rwkv.mixing import squared_relu_
from rwkv_core.rwkv.rows import Rows
from rwkv_core.wkv.wkv7 import FASTEST, WKV7, wkv7

NAME = "RWKV-7"
FAMILY = "rwkv7"
MODEL_TYPE = "rwkv7"
MARK = r"\.(att|attn)\.r_k$"
FLOAT32: tuple[str, ...] = (".w0",)
RESCALE_EVERY = 0  # float16 holds it as it is
OPERATOR = WKV7
SHIFTED = "rwkvag"  # what is mixed with the token before, in the order of the hub's x_x
LOW_RANK = ("decay_low_rank_dim", "a_low_rank_dim", "v_low_rank_dim", "gate_low_rank_dim")

empty = heads.empty


class TimeMix(nn.Module):
    """The attention-like sublayer: W_o ((norm(wkv) + bonus) * g)."""

    UNDECAYED = ("r_k", "w1", "w2", "a1", "a2", "v1", "v2", "g1", "g2")  # as in RWKV-LM, only linear layers decay

    def __init__(self, shape: Mapping[str, Any], layer: int) -> None:
        super().__init__()
        width, inner = shape["hidden_size"], heads.width(shape)
        self.heads = heads.count(shape)
        decay, rate, value, gate = (shape[key] for key in LOW_RANK)
        self.x_r = nn.Parameter(torch.empty(1, 1, width))
        self.x_w = nn.Parameter(torch.empty(1, 1, width))
        self.x_k = nn.Parameter(torch.empty(1, 1, width))
        self.x_v = nn.Parameter(torch.empty(1, 1, width))
        self.x_a = nn.Parameter(torch.empty(1, 1, width))
        self.x_g = nn.Parameter(torch.empty(1, 1, width))
        self.w0 = nn.Parameter(torch.empty(1, 1, inner))
        self.w1 = nn.Parameter(torch.empty(width, decay))
        self.w2 = nn.Parameter(torch.empty(decay, inner))
        self.a0 = nn.Parameter(torch.empty(1, 1, inner))
        self.a1 = nn.Parameter(torch.empty(width, rate))
        self.a2 = nn.Parameter(torch.empty(rate, inner))
        if layer > 0:  # the first layer's values are what the later ones' are mixed with
            self.v0 = nn.Parameter(torch.empty(1, 1, inner))
            self.v1 = nn.Parameter(torch.empty(width, value))
            self.v2 = nn.Parameter(torch.empty(value, inner))
        self.g1 = nn.Parameter(torch.empty(width, gate))
        self.g2 = nn.Parameter(torch.empty(gate, inner))
        self.k_k = nn.Parameter(torch.empty(1, 1, inner))
        self.k_a = nn.Parameter(torch.empty(1, 1, inner))
        self.r_k = nn.Parameter(torch.empty(self.heads, shape["head_size"]))
        self.receptance = nn.Linear(width, inner, bias=False)
        self.key = nn.Linear(width, inner, bias=False)
        self.value = nn.Linear(width, inner, bias=False)
        self.output = nn.Linear(inner, width, bias=False)
        self.ln_x = heads.norm(shape)

    def forward(
        self, x: Tensor, last: Tensor, state: Tensor, first: Tensor | None, rows: Rows, impl: str
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x [B, T, C] or [B, C], the first layer's values (None in that layer) -> output like x, the input to shift in
        next, the state, and the first layer's values.
        """
        mixed = rows.mix(x, last, (self.x_r, self.x_k, self.x_v, self.x_w, self.x_a, self.x_g))
        r = linear(next(mixed), self.receptance.weight)
        k = linear(next(mixed), self.key.weight)
        x_v = next(mixed)
        v = linear(x_v, self.value.weight)
        if first is None:
            first = v
        else:
            share = torch.sigmoid_(self.v0.view(-1) + matmul(matmul(x_v, self.v1), self.v2))
            v = torch.lerp(v, first, share.to(v.dtype))  # under autocast the share is in float32
        decay = self.w0.view(-1) + matmul(torch.tanh(matmul(next(mixed), self.w1)), self.w2)
        w = FASTEST * torch.sigmoid_(decay.float())
        rate = torch.sigmoid_(self.a0.view(-1) + matmul(matmul(next(mixed), self.a1), self.a2))
        gate = matmul(torch.sigmoid_(matmul(next(mixed), self.g1)), self.g2)
        # In float32: half precision has no 1e-12 to divide a key of zeros by.
        kk = F.normalize(heads.split((k * self.k_k.view(-1)).float(), self.heads), dim=-1).to(k.dtype)
        k = k * torch.addcmul(1 - self.k_a.view(-1), rate, self.k_a.view(-1))
        r, w, k, v_heads, rate = (heads.split(part, self.heads) for part in (r, w, k, v, rate))
        call = functools.partial(wkv7, impl=impl)
        y, state = rows.scan(call, (r, w, k, heads.roomy(v_heads), -kk, kk * rate), state)
        bonus = (r * k * self.r_k).sum(-1, keepdim=True)
        out = torch.addcmul(heads.joined(y, self.ln_x, x).view_as(v_heads), bonus, v_heads)
        return linear(out.view_as(gate) * gate, self.output.weight), rows.at_end(x, last), state, first


class ChannelMix(nn.Module):
    """The feed-forward sublayer: W_v max(k, 0)^2, without a gate."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.x_k = nn.Parameter(torch.empty(1, 1, width))
        self.key = nn.Linear(width, inner, bias=False)
        self.value = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, last: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        """x [B, T, C] or [B, C] -> output like x and the input to shift in next."""
        (x_k,) = rows.mix(x, last, (self.x_k,))
        return linear(squared_relu_(linear(x_k, self.key.weight)), self.value.weight), rows.at_end(x, last)


def Block(shape: Mapping[str, Any], layer: int) -> heads.Block:
    """One layer."""
    ffn = ChannelMix(shape["hidden_size"], shape["intermediate_size"])
    return heads.Block(shape, layer, TimeMix(shape, layer), ffn)


def begin(blocks: Sequence[Any]) -> None:
    """The first block's values are not there yet."""


def published(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a file under this module's names: BlinkDL's own, transformers' or flash-linear-attention's.

    Some of BlinkDL's files have v0, v1 and v2 in the first layer, which nothing reads.
    """
    named = layouts.from_fla(tensors, SHIFTED) if any(".attn." in name for name in tensors) else dict(tensors)
    named = {name.removeprefix("rwkv7."): tensor for name, tensor in named.items()}
    return {name: tensor for name, tensor in named.items() if name not in {f"blocks.0.att.v{i}" for i in range(3)}}


def sizes(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """The model's shape, read from the weights of blocks 0 and 1."""
    head_size = heads.size(tensors["blocks.0.att.r_k"])
    names = (f"blocks.{int(letter == 'v')}.att.{letter}1" for letter in "wavg")
    alone = "blocks.1.att.r_k" not in tensors  # a single layer mixes its values with none
    ranks = {
        key: 0 if alone and name.startswith("blocks.1.") else tensors[name].shape[1]
        for key, name in zip(LOW_RANK, names, strict=True)
    }
    return {**heads.sizes(tensors, config, MODEL_TYPE, head_size), **ranks}


@torch.no_grad()
def initialise(block: Any, layer: int, layers: int, generator: torch.Generator) -> None:
    """A block as training begins, as RWKV-LM's RWKV-v7 does it.

    Its README prints other constants for a0, v0, k_k, k_a and r_k; these are the code's.
    """
    set_vectors(block, layer, layers)
    v5.initialise_matrices(block, generator)
    set_low_rank(block.att, generator)


@torch.no_grad()
def set_low_rank(att: TimeMix, generator: torch.Generator) -> None:
    """Decay, rate, gate and share of the first values do not depend on the text yet."""
    pairs = [(att.w1, att.w2), (att.a1, att.a2), (att.g1, att.g2), *([(att.v1, att.v2)] if hasattr(att, "v1") else [])]
    for first, second in pairs:
        first.zero_()
        orthogonal(second, 0.1, generator)


@torch.no_grad()
def set_vectors(block: Any, layer: int, layers: int) -> None:
    """Decays, rates, bonus and token-shift weights of one layer: the earlier the layer, the shorter its memory."""
    set_time_mix_vectors(block.att, layer, layers)
    below, _ = heads.ramp(block.ffn.x_k.shape[-1], block.ffn.x_k.device)
    block.ffn.x_k.copy_(1 - below ** ((1 - layer / layers) ** 4))


@torch.no_grad()
def set_time_mix_vectors(att: TimeMix, layer: int, layers: int) -> None:
    """Those of time mixing alone, its norm's among them."""
    heads.set_norm(att.ln_x, layer, layers)
    upward, downward = layer / max(1, layers - 1), 1 - layer / layers
    below, _ = heads.ramp(att.x_r.shape[-1], att.x_r.device)
    for shares, power in (((att.x_r, att.x_g), 0.2), ((att.x_w, att.x_a), 0.9), ((att.x_k, att.x_v), 0.7)):
        for share in shares:
            share.copy_(1 - below ** (power * downward))
    count, head_size = att.r_k.numel(), att.r_k.shape[1]
    _, full = heads.ramp(count, att.r_k.device)
    linear = full - 0.5
    place = torch.arange(count, device=full.device) % head_size * 2 / max(1, head_size - 1) - 1  # -1 to 1 in each head
    zigzag = place * place.abs()
    att.w0.copy_(-6 + 6 * full ** (1 + upward**0.3) + 0.5 + 2.5 * zigzag)
    att.a0.copy_(-0.19 + 0.3 * zigzag + 0.4 * linear)
    if hasattr(att, "v0"):
        att.v0.copy_(0.73 - 0.4 * linear)
    att.k_k.copy_(0.71 - 0.1 * linear)
    att.k_a.fill_(1.02)
    att.r_k.fill_(-0.04)
