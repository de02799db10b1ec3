"""The product of a few vectors with a large matrix, as linear layers need it in generation: on a CPU in C, since
torch's reads the matrix more slowly. For the models of all families alike.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rwkv_core.wkv.compiled import Library

LIBRARY = Library(__file__, sizes=3, pointers=4)
MOST = 4  # vectors of one call to linear.c
FEWEST = 1 << 15  # weights that are worth a call


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b, as torch's function of this name.

    x [..., I]; weight [O, I]; bias [O]. Returns [..., O].
    """
    if not serves(x, weight, bias):
        return F.linear(x, weight, bias)
    outputs, inputs = weight.shape
    y = x.new_empty((*x.shape[:-1], outputs))
    LIBRARY.run((x.numel() // inputs, inputs, outputs), x.contiguous(), weight, bias, y)
    return y


class Linear(nn.Linear):
    """torch's layer, multiplying by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """x [..., I] -> [..., O]."""
        return linear(x, self.weight, self.bias)


def outputs(layer: nn.Module, x: Tensor, some: slice | None) -> Tensor:
    """x [..., I] through a linear layer, of its outputs [..., O] all or some."""
    if some is None:
        return layer(x)
    if not isinstance(layer, nn.Linear):
        return layer(x)[..., some]
    return linear(x, layer.weight[some], None if layer.bias is None else layer.bias[some])


def hasten(model: nn.Module) -> None:
    """Let the plain linear layers of a model that others have written multiply by `linear`."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear


def serves(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether linear.c multiplies these, or torch, which says what does not fit."""
    if not x.dim() or weight.dim() != 2:
        return False
    outputs, inputs = weight.shape
    if not 0 < x.numel() <= MOST * inputs or x.shape[-1] != inputs or outputs * inputs < FEWEST:
        return False
    if not weight.is_contiguous() or not _plain(weight) or not _plain(x):
        return False
    if bias is not None and not (bias.shape == (outputs,) and bias.is_contiguous() and _plain(bias)):
        return False
    return not torch.is_autocast_enabled("cpu") and LIBRARY.lacks(x.device, torch.float32) is None


def _plain(x: Tensor) -> bool:
    """Numbers of float32 on the CPU of which no gradient is recorded."""
    recorded = x.requires_grad and torch.is_grad_enabled()
    return x.dtype == torch.float32 and x.device.type == "cpu" and not recorded
