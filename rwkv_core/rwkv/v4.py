"""RWKV-4 (paper v2, sec. 3.1-3.2, eqs. 11-19). Names of weights are those of BlinkDL's checkpoints."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rwkv_core.fill import orthogonal
from rwkv_core.linear import linear
from rwkv_core.rwkv import layouts
from rwkv_core.rwkv.mixing import add_, squared_relu_
from rwkv_core.rwkv.rows import Rows
from rwkv_core.wkv.wkv4 import WKV4, initial_state, wkv4

NAME = "RWKV-4"
FAMILY = "rwkv4"
MODEL_TYPE = "rwkv"
MARK = r"\.(att|attention)\.time_first$"
FLOAT32: tuple[str, ...] = (".time_decay", ".time_first")
RESCALE_EVERY = 6  # as in BlinkDL's and transformers' inference
HUB_NAMES: Mapping[str, str] = {
    "emb.": "embeddings.",
    ".ln0.": ".pre_ln.",
    ".att.": ".attention.",
    ".ffn.": ".feed_forward.",
    ".time_mix_k": ".time_mix_key",
    ".time_mix_v": ".time_mix_value",
    ".time_mix_r": ".time_mix_receptance",
}
OPERATOR = WKV4


class LayerState(NamedTuple):
    """What one layer carries to the next token: 5 vectors of [B, C] (paper Table 2: 5DL numbers)."""

    att_x: Tensor
    a: Tensor
    b: Tensor
    p: Tensor
    ffn_x: Tensor


class TimeMix(nn.Module):
    """The attention-like sublayer: W_o (sigmoid(r) * wkv), eqs. 11-17."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.time_decay = nn.Parameter(torch.empty(inner))
        self.time_first = nn.Parameter(torch.empty(inner))
        self.time_mix_k = nn.Parameter(torch.empty(1, 1, width))
        self.time_mix_v = nn.Parameter(torch.empty(1, 1, width))
        self.time_mix_r = nn.Parameter(torch.empty(1, 1, width))
        self.key = nn.Linear(width, inner, bias=False)
        self.value = nn.Linear(width, inner, bias=False)
        self.receptance = nn.Linear(width, inner, bias=False)
        self.output = nn.Linear(inner, width, bias=False)

    def forward(
        self,
        x: Tensor,
        last: Tensor,
        state: tuple[Tensor, Tensor, Tensor],
        w: Tensor,
        rows: Rows,
        impl: str,
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
        """x [B, T, C] or [B, C], w = -exp(time_decay) -> output like x, the input to shift in next, the WKV state."""
        mixed = rows.mix(x, last, (self.time_mix_k, self.time_mix_v, self.time_mix_r), current=True)
        k, v, r = map(linear, mixed, (self.key.weight, self.value.weight, self.receptance.weight))
        r = torch.sigmoid_(r)
        sequence = (len(k), -1, k.shape[-1])  # a single token is a sequence of one
        call = functools.partial(wkv4, w, self.time_first.float(), impl=impl)
        y, state = rows.scan(call, (k.view(sequence), v.view(sequence)), state)
        return linear(r * y.view_as(r), self.output.weight), rows.at_end(x, last), state


class ChannelMix(nn.Module):
    """The feed-forward sublayer: sigmoid(r) * W_v max(k, 0)^2, eqs. 18-19."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.time_mix_k = nn.Parameter(torch.empty(1, 1, width))
        self.time_mix_r = nn.Parameter(torch.empty(1, 1, width))
        self.key = nn.Linear(width, inner, bias=False)
        self.receptance = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, last: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        """x [B, T, C] or [B, C] -> output like x and the input to shift in next."""
        mixed = rows.mix(x, last, (self.time_mix_k, self.time_mix_r), current=True)
        k, r = map(linear, mixed, (self.key.weight, self.receptance.weight))
        return torch.sigmoid_(r) * linear(squared_relu_(k), self.value.weight), rows.at_end(x, last)


class Block(nn.Module):
    """x + TimeMix(LN(x)), then x + ChannelMix(LN(x)) (paper Fig. 2)."""

    def __init__(self, shape: Mapping[str, Any], layer: int) -> None:
        super().__init__()
        width, eps = shape["hidden_size"], shape.get("layer_norm_epsilon", 1e-5)
        self.layer = layer
        if layer == 0:
            self.ln0 = nn.LayerNorm(width, eps)  # of the embedding; in block 0 because the checkpoints have it there
        self.ln1 = nn.LayerNorm(width, eps)
        self.ln2 = nn.LayerNorm(width, eps)
        self.att = TimeMix(width, shape.get("attention_hidden_size") or width)
        self.ffn = ChannelMix(width, shape.get("intermediate_size") or 4 * width)

    def forward(
        self, x: Tensor, state: LayerState, shared: Sequence[Tensor], rows: Rows, impl: str
    ) -> tuple[Tensor, LayerState, Sequence[Tensor]]:
        """x [B, T, C] or [B, C], what the layer carries, all layers' decays -> the same three for the next block."""
        att_x, a, b, p, ffn_x = state
        out, att_x, (a, b, p) = self.att(self.ln1(x), att_x, (a, b, p), shared[self.layer], rows, impl)
        x = add_(out, x)
        out, ffn_x = self.ffn(self.ln2(x), ffn_x, rows)
        return add_(out, x), LayerState(att_x, a, b, p, ffn_x), shared


def begin(blocks: Sequence[Block]) -> Sequence[Tensor]:
    """The decays of all layers, -exp(time_decay) [C] each in float32, made in one go."""
    return (-torch.exp(torch.stack([block.att.time_decay for block in blocks]).float())).unbind()


def empty(shape: Mapping[str, Any], batch: int, like: Tensor) -> LayerState:
    """What a layer carries before the first token of `batch` rows, on the device of `like` and in its type."""
    zero = torch.zeros(batch, shape["hidden_size"], device=like.device, dtype=like.dtype)
    inner = shape.get("attention_hidden_size") or shape["hidden_size"]
    exact = torch.promote_types(like.dtype, torch.float32)
    return LayerState(zero, *initial_state(batch, inner, like.device, exact), zero)


def published(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a file under this module's names."""
    return layouts.from_hub(tensors, HUB_NAMES)


def sizes(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """The model's shape, read from the weights of block 0."""
    inner, width = tensors["blocks.0.att.key.weight"].shape
    return {
        "model_type": MODEL_TYPE,
        "vocab_size": len(tensors["emb.weight"]),
        "hidden_size": width,
        "attention_hidden_size": inner,
        "intermediate_size": len(tensors["blocks.0.ffn.key.weight"]),
        "layer_norm_epsilon": config["layer_norm_epsilon"],
    }


@torch.no_grad()
def initialise(block: Block, layer: int, layers: int, generator: torch.Generator) -> None:
    """A block as training begins (paper v2 App. D/E, as RWKV-LM's RWKV-v4neo carries it out).

    Where the two differ the code wins, since the published models came from it: mu_r is
    (i/D)^(0.5 (1-l/L)) and not half of (i/D)^(1-l/L); value and ffn.key are orthogonal with the
    gain sqrt(max(1, rows/columns)), not zero; att.output and ffn.value are zero, not normal.
    """
    set_vectors(block, layer, layers)
    orthogonal(block.att.value.weight, 1.0, generator)
    orthogonal(block.ffn.key.weight, 1.0, generator)
    for silent in (block.att.key, block.att.receptance, block.att.output, block.ffn.receptance, block.ffn.value):
        silent.weight.zero_()


@torch.no_grad()
def set_vectors(block: Block, layer: int, layers: int) -> None:
    """Decay, bonus and token-shift weights of one layer: the earlier the layer, the shorter its memory."""
    set_time_mix_vectors(block.att, layer, layers)
    width = block.ffn.time_mix_k.shape[-1]
    ramp = torch.arange(width, device=block.ffn.time_mix_k.device) / width
    downward = 1 - layer / layers
    block.ffn.time_mix_k.copy_(ramp**downward)
    block.ffn.time_mix_r.copy_(ramp**downward)


@torch.no_grad()
def set_time_mix_vectors(att: TimeMix, layer: int, layers: int) -> None:
    """Those of time mixing alone."""
    upward = layer / max(1, layers - 1)
    downward = 1 - layer / layers
    inner = att.time_decay.shape[0]
    h = torch.arange(inner, device=att.time_decay.device)
    att.time_decay.copy_(-5 + 8 * (h / max(1, inner - 1)) ** (0.7 + 1.3 * upward))
    att.time_first.copy_(math.log(0.3) + 0.5 * ((h + 1) % 3 - 1))
    width = att.time_mix_k.shape[-1]
    ramp = torch.arange(width, device=att.time_mix_k.device) / width
    att.time_mix_k.copy_(ramp**downward)
    att.time_mix_v.copy_(ramp**downward + 0.3 * upward)
    att.time_mix_r.copy_(ramp ** (0.5 * downward))
