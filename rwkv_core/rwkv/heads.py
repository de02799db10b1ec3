"""What RWKV-5, 6 and 7 share: heads, each with a matrix for a state, and a group norm of what they give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rwkv_core.rwkv.mixing import add_
from rwkv_core.rwkv.rows import Rows
from rwkv_core.wkv.matrix_state import initial_state

EPSILON = 64e-5  # of the group norm: 1e-5, of values that RWKV-5's training code divides by 8


class LayerState(NamedTuple):
    """What one layer carries to the next token: the inputs to shift in [B, C] and the matrices [B, H, key, value]."""

    att_x: Tensor
    wkv: Tensor
    ffn_x: Tensor


class Block(nn.Module):
    """x + att(LN(x)), then x + ffn(LN(x)). att: (x, last, wkv, shared, rows, impl) -> out, last, wkv, shared."""

    def __init__(self, shape: Mapping[str, Any], layer: int, att: nn.Module, ffn: nn.Module) -> None:
        super().__init__()
        width, eps = shape["hidden_size"], shape.get("layer_norm_epsilon", 1e-5)
        if layer == 0:
            self.ln0 = nn.LayerNorm(width, eps)  # of the embedding; in block 0 because the checkpoints have it there
        self.ln1 = nn.LayerNorm(width, eps)
        self.ln2 = nn.LayerNorm(width, eps)
        self.att = att
        self.ffn = ffn

    def forward(
        self, x: Tensor, state: LayerState, shared: Any, rows: Rows, impl: str
    ) -> tuple[Tensor, LayerState, Any]:
        """x [B, T, C] or [B, C], what the layer carries, what the blocks share -> the same three for the next block."""
        out, att_x, wkv, shared = self.att(self.ln1(x), state.att_x, state.wkv, shared, rows, impl)
        x = add_(out, x)
        out, ffn_x = self.ffn(self.ln2(x), state.ffn_x, rows)
        return add_(out, x), LayerState(att_x, wkv, ffn_x), shared


def width(shape: Mapping[str, Any]) -> int:
    """Channels of all heads of a layer."""
    return int(shape.get("attention_hidden_size") or shape["hidden_size"])


def count(shape: Mapping[str, Any]) -> int:
    """Heads of a layer."""
    return width(shape) // int(shape["head_size"])


def norm(shape: Mapping[str, Any]) -> nn.GroupNorm:
    """Of each head's values, before they are gated."""
    return nn.GroupNorm(count(shape), width(shape), shape.get("group_norm_epsilon", EPSILON))


def roomy(v: Tensor) -> Tensor:
    """Values in float32 where they are float16, whose range the recurrence's sums leave; the norm brings them back."""
    return v.float() if v.dtype == torch.float16 else v


def split(x: Tensor, heads: int) -> Tensor:
    """x [B, T, HN], or [B, HN] of a single token, as [B, T, H, N]."""
    return x.view(len(x), -1, heads, x.shape[-1] // heads)


def joined(y: Tensor, norm: nn.GroupNorm, like: Tensor) -> Tensor:
    """y [B, T, H, N] after the group norm, in float32 or more: [B, T, HN] or [B, HN] as `like` is, and in its type."""
    exact = torch.promote_types(y.dtype, torch.float32)
    y = y.to(exact)
    if y.device.type == "cpu":
        normed = F.layer_norm(y, y.shape[-1:], eps=norm.eps)  # torch's group norm takes twice as long there
    else:
        normed = F.group_norm(y.reshape(-1, norm.num_channels), norm.num_groups, eps=norm.eps)
    normed = normed.view(*like.shape[:-1], norm.num_channels)
    return torch.addcmul(norm.bias.to(exact), normed, norm.weight.to(exact)).to(like.dtype)


def empty(shape: Mapping[str, Any], batch: int, like: Tensor) -> LayerState:
    """What a layer carries before the first token of `batch` rows, on the device of `like` and in its type."""
    zero = torch.zeros(batch, shape["hidden_size"], device=like.device, dtype=like.dtype)
    exact = torch.promote_types(like.dtype, torch.float32)
    return LayerState(zero, initial_state(batch, count(shape), shape["head_size"], like.device, exact), zero)


def size(table: Tensor) -> int:
    """Channels of a head, of a table [H, N]. Raises ValueError for a flat one, which does not say it."""
    if table.ndim != 2:
        raise ValueError(f"a table of heads has the shape {list(table.shape)}, not [heads, channels]")
    return table.shape[1]


def sizes(tensors: Mapping[str, Tensor], config: Mapping[str, Any], model_type: str, head_size: int) -> dict[str, Any]:
    """What the versions read of a model's shape in the same way. Raises ValueError where the heads do not fill it.

    The group norm's epsilon is flash-linear-attention's, N times its `norm_eps`, where its configuration is there.
    """
    inner, width = tensors["blocks.0.att.key.weight"].shape
    if head_size < 2 or inner % head_size:
        raise ValueError(f"heads of {head_size} channels do not fill a width of {inner}")
    epsilon = config.get("group_norm_epsilon", head_size * config["norm_eps"] if "norm_eps" in config else EPSILON)
    return {
        "model_type": model_type,
        "vocab_size": len(tensors["emb.weight"]),
        "hidden_size": width,
        "attention_hidden_size": inner,
        "head_size": head_size,
        "intermediate_size": len(tensors["blocks.0.ffn.key.weight"]),
        "layer_norm_epsilon": config["layer_norm_epsilon"],
        "group_norm_epsilon": epsilon,
    }


def ramp(channels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Channel numbers over their count, below 1, and over the last of them, up to 1."""
    n = torch.arange(channels, device=device)
    return n / channels, n / max(1, channels - 1)


@torch.no_grad()
def set_norm(norm: nn.GroupNorm, layer: int, layers: int) -> None:
    """As training begins: what earlier layers give is scaled down (RWKV-LM's generate_init_weight)."""
    norm.weight.fill_(((1 + layer) / layers) ** 0.7)
    norm.bias.zero_()
