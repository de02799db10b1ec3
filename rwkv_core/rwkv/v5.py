"""RWKV-5 (arXiv:2404.05892, "Eagle", sec. 3), and the two forms before it. Names of weights are those of BlinkDL's
checkpoints.

5.2, which every published model is: a decay and a bonus for each channel, and a gate. 5.1: one of both for each head.
5.0: that without the gate.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rwkv_core.fill import orthogonal
from rwkv_core.linear import linear
from rwkv_core.rwkv import heads, layouts, v4
from rwkv_core.rwkv.rows import Rows
from rwkv_core.rwkv.v4 import ChannelMix
from rwkv_core.wkv.wkv6 import WKV6, wkv6

NAME = "RWKV-5"
FAMILY = "rwkv5"
MODEL_TYPE = "rwkv5"
MARK = r"\.(att|attention)\.ln_x\."
FLOAT32: tuple[str, ...] = (".time_decay", ".time_faaaa")
RESCALE_EVERY = 6
HUB_NAMES = {**v4.HUB_NAMES, ".time_mix_g": ".time_mix_gate"}
OPERATOR = WKV6

empty = heads.empty


class TimeMix(nn.Module):
    """The attention-like sublayer: W_o (norm(wkv) * silu(g))."""

    UNDECAYED = ("time_decay", "time_faaaa")  # tables [H, N] of what weight decay leaves alone, as vectors

    def __init__(self, shape: Mapping[str, Any], layer: int) -> None:
        super().__init__()
        width, inner = shape["hidden_size"], heads.width(shape)
        variant = shape.get("variant", "5.2")
        self.layer = layer
        self.heads = heads.count(shape)
        channels = (self.heads, shape["head_size"]) if variant == "5.2" else (self.heads,)
        self.time_decay = nn.Parameter(torch.empty(channels))
        self.time_faaaa = nn.Parameter(torch.empty(channels))
        self.time_mix_k = nn.Parameter(torch.empty(1, 1, width))
        self.time_mix_v = nn.Parameter(torch.empty(1, 1, width))
        self.time_mix_r = nn.Parameter(torch.empty(1, 1, width))
        self.key = nn.Linear(width, inner, bias=False)
        self.value = nn.Linear(width, inner, bias=False)
        self.receptance = nn.Linear(width, inner, bias=False)
        self.output = nn.Linear(inner, width, bias=False)
        self.ln_x = heads.norm(shape)
        self.gated = variant != "5.0"
        if self.gated:
            self.time_mix_g = nn.Parameter(torch.empty(1, 1, width))
            self.gate = nn.Linear(width, inner, bias=False)

    def forward(
        self, x: Tensor, last: Tensor, state: Tensor, decays: Sequence[Tensor], rows: Rows, impl: str
    ) -> tuple[Tensor, Tensor, Tensor, Sequence[Tensor]]:
        """x [B, T, C] or [B, C], all layers' log-decays -> output like x, the input to shift in next, the state, and
        the decays.
        """
        shares = (self.time_mix_k, self.time_mix_v, self.time_mix_r, *([self.time_mix_g] if self.gated else []))
        matrices = (self.key, self.value, self.receptance, *([self.gate] if self.gated else []))
        mixed = rows.mix(x, last, shares, current=True)
        k, v, r, *gate = map(linear, mixed, (matrix.weight for matrix in matrices))
        k, v, r = (heads.split(part, self.heads) for part in (k, v, r))
        u = self.time_faaaa.float().view(self.heads, -1).expand(k.shape[2:])
        w = decays[self.layer].view(self.heads, -1).expand(k.shape)
        y, state = rows.scan(functools.partial(wkv6, u, impl=impl), (r, w, k, heads.roomy(v)), state)
        out = heads.joined(y, self.ln_x, x)
        if self.gated:
            out = out * F.silu(gate[0])
        return linear(out, self.output.weight), rows.at_end(x, last), state, decays


def Block(shape: Mapping[str, Any], layer: int) -> heads.Block:
    """One layer. The feed-forward sublayer is RWKV-4's."""
    ffn = ChannelMix(shape["hidden_size"], shape["intermediate_size"])
    return heads.Block(shape, layer, TimeMix(shape, layer), ffn)


def begin(blocks: Sequence[Any]) -> Sequence[Tensor]:
    """The log-decays of all layers, -exp(time_decay) in float32, made in one go."""
    return (-torch.exp(torch.stack([block.att.time_decay for block in blocks]).float())).unbind()


def published(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a file under this module's names. `time_first`, of the earliest files, stands in an exponent."""
    named = layouts.from_hub(tensors, HUB_NAMES)
    first = [name for name in named if name.endswith(".att.time_first")]
    for name in first:
        named[name.replace("time_first", "time_faaaa")] = torch.exp(named.pop(name).float())
    return named


def sizes(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """The model's shape, read from the weights of block 0."""
    decay = tensors["blocks.0.att.time_decay"]
    if decay.ndim == 3 and decay.shape[-1] == 1:
        decay = decay[..., 0]
    by_channel = decay.ndim == 2 and decay.shape[1] > 1
    head_size = decay.shape[1] if by_channel else len(tensors["blocks.0.att.key.weight"]) // max(1, decay.numel())
    variant = "5.2" if by_channel else "5.1" if "blocks.0.att.gate.weight" in tensors else "5.0"
    return {**heads.sizes(tensors, config, MODEL_TYPE, head_size), "variant": variant}


@torch.no_grad()
def initialise(block: Any, layer: int, layers: int, generator: torch.Generator) -> None:
    """A block as training begins, as RWKV-LM's RWKV-v5 does it."""
    set_vectors(block, layer, layers)
    initialise_matrices(block, generator)


@torch.no_grad()
def initialise_matrices(block: Any, generator: torch.Generator) -> None:
    """Orthogonal matrices, and silent ones at the ends of both sublayers (RWKV-LM's generate_init_weight)."""
    att, ffn = block.att, block.ffn
    for matrix in (att.receptance, att.value, ffn.key):
        orthogonal(matrix.weight, 1.0, generator)
    for matrix in (att.key, *([att.gate] if hasattr(att, "gate") else [])):
        orthogonal(matrix.weight, 0.1, generator)
    for matrix in (att.output, ffn.value, *([ffn.receptance] if hasattr(ffn, "receptance") else [])):
        matrix.weight.zero_()


@torch.no_grad()
def set_vectors(block: Any, layer: int, layers: int) -> None:
    """Decay, bonus and token-shift weights of one layer: the earlier the layer, the shorter its memory."""
    set_time_mix_vectors(block.att, layer, layers)
    ffn = block.ffn
    below, _ = heads.ramp(ffn.time_mix_k.shape[-1], ffn.time_mix_k.device)
    for share in (ffn.time_mix_k, ffn.time_mix_r):
        share.copy_(below ** (1 - layer / layers))


@torch.no_grad()
def set_time_mix_vectors(att: TimeMix, layer: int, layers: int) -> None:
    """Those of time mixing alone, its norm's among them."""
    upward, downward = layer / max(1, layers - 1), 1 - layer / layers
    below, _ = heads.ramp(att.time_mix_k.shape[-1], att.time_mix_k.device)
    set_decays(att, layer, layers)
    att.time_mix_k.copy_(below**downward)
    att.time_mix_v.copy_(below**downward + 0.3 * upward)
    att.time_mix_r.copy_(below ** (0.5 * downward))
    if att.gated:
        att.time_mix_g.copy_(below ** (0.5 * downward))


@torch.no_grad()
def set_decays(att: Any, layer: int, layers: int) -> None:
    """Decay, bonus and norm, with which RWKV-6 begins too."""
    heads.set_norm(att.ln_x, layer, layers)
    upward = layer / max(1, layers - 1)
    count = att.time_decay.numel()
    _, full = heads.ramp(count, att.time_decay.device)
    n = torch.arange(count, device=full.device)
    att.time_decay.copy_((-6 + 5 * full ** (0.7 + 1.3 * upward)).view_as(att.time_decay))
    att.time_faaaa.copy_((upward * (1 - full) + 0.1 * ((n + 1) % 3 - 1)).view_as(att.time_faaaa))
