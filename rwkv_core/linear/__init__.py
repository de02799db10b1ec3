"""Linear layers and embeddings as generation needs them, for the models of all families alike: on a CPU in C, since
torch's products of a few vectors read the matrix more slowly, and with weights in int8.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from rwkv_core.linear.matrix import Int8Matrix
from rwkv_core.linear.products import lacks_arithmetic, product, serves


def linear(x: Tensor, weight: Tensor | Int8Matrix, bias: Tensor | None = None) -> Tensor:
    """x W^T + b, as torch's function of this name.

    x [..., I]; weight [O, I]; bias [O]. Returns [..., O].
    """
    if isinstance(weight, Int8Matrix):
        return weight.product(x, bias)
    if serves(x, weight, bias):
        return product(x, weight, bias=bias)
    return F.linear(x, weight, bias)


def matmul(x: Tensor, weight: Tensor) -> Tensor:
    """x W, as torch's function of this name, for matrices of low rank, which are kept as they multiply.

    x [..., N, I]; weight [..., I, O]. Returns [..., N, O]. Numbers in bfloat16 are multiplied in float32, and the
    result rounded, on a processor without arithmetic in bfloat16.
    """
    if lacks_arithmetic(x, weight):
        return (x.float() @ weight.float()).to(x.dtype)
    return x @ weight


class Linear(nn.Linear):
    """torch's layer, multiplying by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """x [..., I] -> [..., O]."""
        return linear(x, self.weight, self.bias)


class Int8Embedding(nn.Embedding):
    """torch's layer over an Int8Matrix."""

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [...] -> [..., C]."""
        matrix: Int8Matrix = self.weight  # type: ignore[assignment]
        return matrix.rows(tokens)


def outputs(layer: nn.Module, x: Tensor, some: slice | None) -> Tensor:
    """x [..., I] through a linear layer, of its outputs [..., O] all or some."""
    if some is None:
        return layer(x)
    if not isinstance(layer, nn.Linear):
        return layer(x)[..., some]
    weight: Tensor | Int8Matrix = layer.weight
    part = weight.part(some) if isinstance(weight, Int8Matrix) else weight[some]
    return linear(x, part, None if layer.bias is None else layer.bias[some])


def hasten(model: nn.Module) -> None:
    """Let the plain linear layers of a model that others have written multiply by `linear`."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear
