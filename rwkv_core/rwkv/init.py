"""A model's weights as training begins, and random ones for timing."""

from __future__ import annotations

import torch
from torch import nn

from rwkv_core.fill import STD, orthogonal, random_fill
from rwkv_core.rwkv.model import RWKV

EMBEDDING_RANGE = 1e-4  # small-init embedding: the LayerNorm after it makes small steps large (paper sec. 3.4)


@torch.no_grad()
def fresh(model: RWKV, seed: int) -> None:
    """As training begins, each block by its version's `initialise`; the head is orthogonal with half the gain."""
    generator = torch.Generator(device=model.emb.weight.device).manual_seed(seed)
    model.emb.weight.uniform_(-EMBEDDING_RANGE, EMBEDDING_RANGE, generator=generator)
    orthogonal(model.head.weight, 0.5, generator)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.reset_parameters()
    for layer, block in enumerate(model.blocks):
        model.version.initialise(block, layer, len(model.blocks), generator)


def random(model: RWKV, seed: int, std: float = STD) -> None:
    """Random matrices for timing, with decays and shifts as training begins with them. std: of the matrices."""
    random_fill(model, seed, std)
    for layer, block in enumerate(model.blocks):
        model.version.set_vectors(block, layer, len(model.blocks))
