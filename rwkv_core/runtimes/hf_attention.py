"""Attention of heads that share keys and values: the queries of one group are rows of one product.

transformers copies keys and values for every query head where there is a mask, and torch's sdpa reads them once for
each head; here both happen once for all heads of a group (grouped-query attention, arXiv:2305.13245).
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

SDPA = "sdpa"  # transformers' name of torch's fused attention
NAME = "grouped sdpa"  # among transformers' kinds of attention
MANY = 4096  # keys, from which on one token is faster so: fewer groups than heads share the threads less evenly


def install(causal: Any) -> None:
    """Let transformers' model attend so, where its heads share keys and torch's fused attention is what it has."""
    config = causal.config
    heads = getattr(config, "num_attention_heads", None)
    shared = getattr(config, "num_key_value_heads", None) not in (None, heads)
    if shared and config._attn_implementation == SDPA:
        ALL_ATTENTION_FUNCTIONS.register(NAME, attention)
        ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)
        config._attn_implementation = NAME


def attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """query [B, H, T, D], key and value [B, G, S, D], mask [B, 1, T, S] -> [B, T, H, D], as transformers' interface."""
    batch, heads, tokens, width = query.shape
    groups = key.shape[1]
    each = heads // groups
    if each == 1 or not _pays(query, key, attention_mask):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    mask = None if attention_mask is None else attention_mask.repeat(1, 1, each, 1)
    rows = query.reshape(batch, groups, each * tokens, width)
    dropout, scale = options.get("dropout", 0.0), options.get("scaling")
    mixed = F.scaled_dot_product_attention(rows, key, value, mask, dropout, scale=scale)
    return mixed.view(batch, heads, tokens, width).transpose(1, 2).contiguous(), None


def _pays(query: Tensor, key: Tensor, mask: Tensor | None) -> bool:
    """Without a mask several tokens attend causally, which rows of a group cannot say. On a GPU torch shares keys by
    itself where there is none, and of several tokens with one nothing was measured.
    """
    single = query.shape[2] == 1
    if mask is not None:
        return mask.shape[1] == 1 and (query.is_cpu or single)
    return query.is_cpu and single and key.shape[2] >= MANY
