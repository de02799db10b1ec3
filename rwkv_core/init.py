"""Fresh weights: the paper's initialisation for training, and fast random ones for timing."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rwkv_core.model import RWKV
from rwkv_core.v4 import TimeMix

EMBEDDING_RANGE = 1e-4  # small-init embedding: the LayerNorm after it makes small steps large (paper sec. 3.4)


@torch.no_grad()
def paper_init(model: RWKV, seed: int) -> None:
    """The initialisation of paper v2 App. D/E, as RWKV-LM's RWKV-v4neo carries it out.

    Where the two differ the code wins, since the published models came from it: mu_r is
    (i/D)^(0.5 (1-l/L)) and not half of (i/D)^(1-l/L); value and ffn.key are orthogonal with the
    gain sqrt(max(1, rows/columns)), not normal; the head's gain is half of that.
    """
    generator = torch.Generator(device=model.emb.weight.device).manual_seed(seed)
    model.emb.weight.uniform_(-EMBEDDING_RANGE, EMBEDDING_RANGE, generator=generator)
    _orthogonal(model.unembed.weight, 0.5, generator)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.reset_parameters()
    for i, block in enumerate(model.blocks):
        time_vectors(model, i)
        _orthogonal(block.att.value.weight, 1.0, generator)
        _orthogonal(block.ffn.key.weight, 1.0, generator)
        for silent in (block.att.key, block.att.receptance, block.att.output, block.ffn.receptance, block.ffn.value):
            silent.weight.zero_()


@torch.no_grad()
def time_vectors(model: RWKV, layer: int) -> None:
    """Decay, bonus and token-shift weights of one layer: the earlier the layer, the shorter its memory."""
    block, layers = model.blocks[layer], len(model.blocks)
    time_mix_vectors(block.att, layer, layers)
    width = block.ffn.time_mix_k.shape[-1]
    ramp = torch.arange(width, device=block.ffn.time_mix_k.device) / width
    downward = 1 - layer / layers
    block.ffn.time_mix_k.copy_(ramp**downward)
    block.ffn.time_mix_r.copy_(ramp**downward)


@torch.no_grad()
def time_mix_vectors(att: TimeMix, layer: int, layers: int) -> None:
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


@torch.no_grad()
def random_fill(module: nn.Module, seed: int, std: float = 0.02) -> None:
    """Weights for timing: matrices normal(0, std), one-dimensional weights 1, biases 0.

    Never zero matrices, which some machines multiply faster. A block of 2^20 normal numbers is drawn
    once and repeated: drawing 10^10 of them would take longer than the measurement.
    """
    device = next(module.parameters()).device
    generator = torch.Generator(device=device).manual_seed(seed)
    block = torch.randn(1 << 20, device=device, generator=generator) * std
    for name, p in module.named_parameters():
        if p.dim() >= 2:
            flat = p.view(-1)
            for start in range(0, flat.numel(), block.numel()):
                part = flat[start : start + block.numel()]
                part.copy_(block[: part.numel()])
            block = block.roll(7919)  # no two matrices alike
        elif name.endswith("bias"):
            p.zero_()
        else:
            p.fill_(1.0)
    if isinstance(module, RWKV):
        for layer in range(len(module.blocks)):
            time_vectors(module, layer)


def _orthogonal(weight: Tensor, gain: float, generator: torch.Generator) -> None:
    rows, columns = weight.shape
    exact = torch.empty_like(weight, dtype=torch.float32)  # the factorisation has no half precision
    nn.init.orthogonal_(exact, gain=gain * math.sqrt(max(1.0, rows / columns)), generator=generator)
    weight.copy_(exact)
