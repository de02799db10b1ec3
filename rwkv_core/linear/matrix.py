"""A matrix in int8."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rwkv_core.linear.products import fits, plain, product

LARGEST = 127  # of int8, whose -128 is not used
PART = 1 << 22  # numbers that are rounded at once


class Int8Matrix(nn.Module):
    """W [O, I] in int8 with a scale a row in float32: what a layer has as its `weight` in place of a parameter.

    Each number is rounded to the nearest of 255 steps between the row's largest absolute value and its negative.
    """

    def __init__(self, weight: Tensor) -> None:
        """weight [O, I] in float32, finite."""
        super().__init__()
        numbers = torch.empty(weight.shape, dtype=torch.int8)
        scales = weight.new_empty(len(weight))
        rows = max(1, PART // weight.shape[1])
        for part, part_numbers, part_scales in zip(
            weight.detach().split(rows), numbers.split(rows), scales.split(rows), strict=True
        ):
            torch.div(part.abs().amax(1), LARGEST, out=part_scales)
            steps = part / part_scales.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
            part_numbers.copy_(steps.round_().clamp_(-LARGEST, LARGEST))
        self.numbers = nn.Parameter(numbers, requires_grad=False)
        self.scales = nn.Parameter(scales, requires_grad=False)

    def exact(self) -> Tensor:
        """W [O, I] in float32."""
        return self.numbers * self.scales[:, None]

    def rows(self, which: Tensor) -> Tensor:
        """which [...] -> those rows of W, [..., I], in float32."""
        return F.embedding(which, self.numbers) * F.embedding(which, self.scales[:, None])

    def part(self, some: slice) -> Int8Matrix:
        """Some of its rows, in the same memory."""
        part = Int8Matrix(self.scales.new_zeros(0, 1))
        part.numbers, part.scales = (nn.Parameter(p[some], requires_grad=False) for p in (self.numbers, self.scales))
        return part

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """x [..., I] in float32 -> x W^T + bias, [..., O]."""
        numbers: Tensor = self.numbers
        if plain(x, torch.float32) and fits(x, numbers.shape, bias):
            return product(x, numbers, self.scales, bias)
        return F.linear(x, self.exact(), bias)
