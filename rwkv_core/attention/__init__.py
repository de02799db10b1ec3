"""Attention on a CPU where torch's is not at its best: of the next token, in C, and of a chunk behind tokens so far."""

from __future__ import annotations

import torch
from torch import Tensor

from rwkv_core.wkv.compiled import Library

LIBRARY = Library(__file__, sizes=11, pointers=5)
PART = 256  # keys of a task, as in attention.c
FEWEST = 64  # keys that are worth a call


def next_token_served(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether `next_token` can take these, and is as fast as torch or faster."""
    several = (query, key, value)
    if query.shape[2] != 1 or key.shape[2] < FEWEST or not all(x.dtype == torch.float32 and x.is_cpu for x in several):
        return False
    return LIBRARY.loaded is not None and not torch.is_grad_enabled() and key.stride(3) == value.stride(3) == 1


def next_token(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """softmax(scale q K^T) V of one token, which sees all others: query [B, H, 1, D]; key, value [B, G, S, D], each for
    H / G heads side by side. Returns [B, H, 1, D].
    """
    batch, heads, _, width = query.shape
    groups, keys = key.shape[1:3]
    y = query.new_empty(batch, heads, 1, width)
    scratch = query.new_empty(batch * heads * -(-keys // PART) * (width + 2))
    sizes = (batch, heads, groups, keys, width, *key.stride()[:3], *value.stride()[:3])
    LIBRARY.run(sizes, (scale * query).contiguous(), key, value, y, scratch)
    return y


def chunk(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Causal attention of the last T tokens of S, without a mask: what they see of the tokens before and of themselves
    is computed apart and joined. Shapes as in `next_token` with T queries, T < S; no gradient is recorded.
    """
    batch, heads, tokens, width = query.shape
    groups, past = key.shape[1], key.shape[2] - tokens
    rows = query.reshape(batch, groups, -1, width)  # of all heads of a group, which so read its keys once
    before, weight = _attend(rows, key[:, :, :past], value[:, :, :past], scale, causal=False)
    own_key, own_value = (x[:, :, past:].repeat_interleave(heads // groups, 1) for x in (key, value))
    own, own_weight = _attend(query, own_key, own_value, scale, causal=True)
    share = torch.sigmoid(weight.reshape(batch, heads, tokens) - own_weight)[..., None]
    return torch.lerp(own.float(), before.reshape(own.shape).float(), share).to(query.dtype)


def _attend(query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool) -> tuple[Tensor, Tensor]:
    """[B, H, T, D], and the logarithm of the sum of the exponentials of each query's scores, [B, H, T]."""
    attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    y, weight = attend(query, key, value, is_causal=causal, scale=scale)
    return y, weight
