"""Ways to fill weights that came from no checkpoint."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

STD = 0.02  # of random matrices, as transformers draws them


@torch.no_grad()
def random_fill(module: nn.Module, seed: int, std: float = STD) -> None:
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


@torch.no_grad()
def orthogonal(weight: Tensor, gain: float, generator: torch.Generator) -> None:
    """An orthogonal matrix [rows, columns] times gain * sqrt(max(1, rows / columns))."""
    rows, columns = weight.shape
    exact = torch.empty_like(weight, dtype=torch.float32)  # the factorisation has no half precision
    nn.init.orthogonal_(exact, gain=gain * math.sqrt(max(1.0, rows / columns)), generator=generator)
    weight.copy_(exact)
