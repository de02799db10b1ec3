"""Attention of transformers' models as this suite runs it: torch's fused one where that is at its best, and other ways
to the same numbers where it is not.

On a CPU a chunk behind tokens so far needs no mask, and the next token's attention is in C (rwkv_core.attention). Heads
that share keys and values (arXiv:2305.13245), for which transformers copies these where there is a mask, are rows of
one product.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, causal_mask_function, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from rwkv_core import attention as on_cpu

SDPA = "sdpa"  # transformers' name of torch's fused attention
NAME = "sdpa or C"  # among transformers' kinds of attention


def install(causal: Any) -> None:
    """Let transformers' model attend so, where torch's fused attention is what it has; on a GPU nothing is gained where
    heads share nothing.
    """
    heads = getattr(causal.config, "num_attention_heads", None)
    shared = getattr(causal.config, "num_key_value_heads", None) not in (None, heads)
    if causal.config._attn_implementation == SDPA and (shared or causal.device.type == "cpu"):
        ALL_ATTENTION_FUNCTIONS.register(NAME, attention)
        ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, mask)
        causal.config._attn_implementation = NAME


def mask(**asked: Any) -> Tensor | None:
    """What transformers' interface wants: the mask [B, 1, T, S] of a pass; None where it is causal and nothing more, of
    the last tokens of all.
    """
    if torch.device(asked["device"]).type == "cpu" and not torch.is_grad_enabled():
        plain = asked["mask_function"] is causal_mask_function and asked["attention_mask"] is None
        ends = asked["q_offset"] + asked["q_length"] == asked["kv_length"] and not asked["kv_offset"]
        if plain and ends and asked["allow_is_causal_skip"]:
            return None
    masked: Tensor | None = sdpa_mask(**asked)
    return masked


def attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """query [B, H, T, D], key and value [B, G, S, D], mask [B, 1, T, S] -> [B, T, H, D], as transformers' interface."""
    batch, heads, tokens, width = query.shape
    groups, keys = key.shape[1:3]
    scale = options.get("scaling") or width**-0.5
    if attention_mask is None and on_cpu.next_token_served(query, key, value):
        return on_cpu.next_token(query, key, value, scale).transpose(1, 2), None
    if attention_mask is None and query.is_cpu and 1 < tokens < keys:
        return on_cpu.chunk(query, key, value, scale).transpose(1, 2).contiguous(), None
    if heads == groups or attention_mask is None or not _pays(query, attention_mask):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    each = heads // groups
    rows = query.reshape(batch, groups, each * tokens, width)
    repeated = attention_mask.repeat(1, 1, each, 1)
    mixed = F.scaled_dot_product_attention(rows, key, value, repeated, options.get("dropout", 0.0), scale=scale)
    return mixed.view(batch, heads, tokens, width).transpose(1, 2).contiguous(), None


def _pays(query: Tensor, attention_mask: Tensor) -> bool:
    """Whether heads that share keys become rows: of several tokens on a GPU that was not measured."""
    return attention_mask.shape[1] == 1 and (query.is_cpu or query.shape[2] == 1)
