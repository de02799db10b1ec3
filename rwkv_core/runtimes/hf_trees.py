"""Trees of texts in one pass of transformers' models: all tokens are one sequence without padding, in which each sees
those of its own tree that come before it. For models that take positions from outside and leave attention to
transformers' interface, as GPT-NeoX and OPT do; BLOOM and GPT-Neo do not.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from rwkv_core.runtimes import hf_attention
from rwkv_core.spec import Tree

NAME = "trees"  # among transformers' kinds of attention
PART = 256  # tokens of a tree that look for others at once, about: a mask is quadratic in them


class Part(NamedTuple):
    """A stem, or branches, or both. mask [1, 1, t, s]: what its t tokens see of the stem's and their own; None where
    all before them.
    """

    stem: slice
    own: slice
    mask: Tensor | None


def served(causal: Any) -> bool:
    """Whether transformers' model can read trees."""
    positions = "position_ids" in inspect.signature(causal.base_model.forward).parameters
    fused = causal.config._attn_implementation in (hf_attention.SDPA, hf_attention.NAME)
    return bool(positions and causal._supports_attention_backend and fused)


def read(causal: Any, tokens: Tensor, trees: Sequence[Tree]) -> Tensor:
    """tokens [N] -> hidden [N, C]; see LanguageModel."""
    parts: list[Part] = []
    positions, begin = [], 0
    for tree in trees:
        parts += _parts(begin, tree, causal.dtype)
        positions += [torch.arange(tree.stem), *(torch.arange(tree.stem, tree.stem + n) for n in tree.branches)]
        begin = parts[-1].own.stop
    kind = causal.config._attn_implementation
    ALL_ATTENTION_FUNCTIONS.register(NAME, _attention)
    causal.config._attn_implementation = NAME
    try:
        position_ids = torch.cat(positions)[None]
        out = causal.base_model(input_ids=tokens[None], position_ids=position_ids, use_cache=False, parts=parts)
    finally:
        causal.config._attn_implementation = kind
    return out.last_hidden_state[0]


def _parts(begin: int, tree: Tree, dtype: torch.dtype) -> Iterator[Part]:
    """The parts of a tree whose tokens begin there; a mask is of the type `dtype`."""
    sizes = (tree.stem, *tree.branches)
    stem = slice(begin, begin + tree.stem)
    runs, filled = [[0]], tree.stem  # 0: the stem; from 1 on: branches
    for i, size in enumerate(tree.branches, 1):
        if filled + size > PART:
            runs.append([])
            filled = 0
        runs[-1].append(i)
        filled += size
    for run in runs:
        owners = torch.tensor(run).repeat_interleave(torch.tensor([sizes[i] for i in run]))
        keys = owners if run[0] == 0 else torch.cat([owners.new_zeros(tree.stem), owners])
        mask = None
        if run not in ([0], [0, 1]):
            seen = ((keys == 0) | (keys == owners[:, None])).tril(len(keys) - len(owners))
            mask = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, -torch.inf)[None, None]
        yield Part(stem, slice(begin, begin + len(owners)), mask)
        begin += len(owners)


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    parts: Sequence[Part],
    **options: Any,
) -> tuple[Tensor, None]:
    """query, key, value [1, H, N, D] -> [1, N, H, D], in the form of transformers' interface."""
    outputs = []
    for stem, own, mask in parts:
        keys, values = key[:, :, own], value[:, :, own]
        if stem.start != own.start:
            keys, values = (torch.cat([x[:, :, stem], x[:, :, own]], 2) for x in (key, value))
        outputs.append(hf_attention.attention(module, query[:, :, own], keys, values, mask, **options)[0])
    return torch.cat(outputs, 1), None
