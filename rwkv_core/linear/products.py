"""x W^T + b with W of float32, bfloat16 or int8, summed in float32: of a few vectors x by linear.c, of more by torch,
which is given a block of W at a time in float32.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from rwkv_core.wkv.compiled import Library

LIBRARY = Library(__file__, sizes=4, pointers=5)
KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}  # of weights, as linear.c numbers them
MOST = {torch.float32: 4, torch.bfloat16: 32, torch.int8: 32}  # vectors of a call to linear.c
FEWEST = 1 << 15  # weights that are worth a call
BLOCK = 1 << 20  # weights that are in float32 at once: they stay in a cache, and torch needs many for its best
ALIKE = 16  # of its rows torch multiplies so many at once


def serves(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether `product` multiplies these as fast as torch does or faster; torch says what does not fit."""
    if x.dtype not in MOST or not plain(x, x.dtype) or not plain(weight, x.dtype) or weight.dim() != 2:
        return False
    if weight.numel() < FEWEST or not weight.is_contiguous() or not fits(x, weight.shape, bias):
        return False
    few = x.numel() <= MOST[x.dtype] * weight.shape[1]
    if x.dtype == torch.bfloat16 and _multiplies_bfloat16():
        return False
    return LIBRARY.loaded is not None if few else x.dtype != torch.float32


def lacks_arithmetic(x: Tensor, weight: Tensor) -> bool:
    """Whether both are in bfloat16 on a processor without arithmetic in it, where torch multiplies one by one."""
    return plain(x, torch.bfloat16) and plain(weight, torch.bfloat16) and not _multiplies_bfloat16()


def fits(x: Tensor, shape: torch.Size, bias: Tensor | None) -> bool:
    """Whether plain numbers x, and the bias, may be multiplied with a matrix of that shape."""
    outputs, inputs = shape
    if not x.numel() or x.shape[-1:] != (inputs,) or torch.is_autocast_enabled("cpu"):
        return False
    return bias is None or (plain(bias, x.dtype) and bias.shape == (outputs,) and bias.is_contiguous())


def plain(x: Tensor, dtype: torch.dtype) -> bool:
    """Numbers of that type on the CPU of which no gradient is recorded, and that no subclass keeps in another way."""
    if type(x) not in (Tensor, nn.Parameter) or x.dtype != dtype or not x.is_cpu:
        return False
    return not (x.requires_grad and torch.is_grad_enabled())


def product(x: Tensor, weight: Tensor, scales: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """x [..., I]; weight [O, I]; bias [O]; scales [O] of the rows of an int8 weight. Returns [..., O] in the type of x:
    float32 where the weight is of int8, else that of the weight.
    """
    outputs, inputs = weight.shape
    vectors = x.numel() // inputs
    if vectors > MOST[weight.dtype] or LIBRARY.loaded is None:
        return _in_blocks(x, weight, scales, bias)
    y = x.new_empty((*x.shape[:-1], outputs))
    LIBRARY.run((KINDS[weight.dtype], vectors, inputs, outputs), x.contiguous(), weight, scales, bias, y)
    return y


@functools.cache
def _multiplies_bfloat16() -> bool:
    """Whether this processor has arithmetic in bfloat16, which torch then uses."""
    has = torch.cpu.get_capabilities()
    return any(has.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # the last is ARM's


def _in_blocks(x: Tensor, weight: Tensor, scales: Tensor | None, bias: Tensor | None) -> Tensor:
    outputs, inputs = weight.shape
    vectors = x.reshape(-1, inputs).float()
    rows = -(-outputs // -(-weight.numel() // BLOCK))  # of blocks that are all alike
    rows = -(-rows // ALIKE) * ALIKE
    y, wide = vectors.new_empty(len(vectors), outputs), vectors.new_empty(min(rows, outputs), inputs)
    for begin in range(0, outputs, rows):
        end = min(begin + rows, outputs)
        block = wide[: end - begin].copy_(weight[begin:end])
        if scales is not None:
            block.mul_(scales[begin:end, None])
        torch.mm(vectors, block.mT, out=y[:, begin:end])
    if bias is not None:
        y += bias
    return y.view(*x.shape[:-1], outputs).to(x.dtype)
