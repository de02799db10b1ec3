"""What the kernels in other languages share whose state is a matrix a head: autograd around forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def call(forward: Callable[..., Any], backward: Callable[..., Any], *arguments: Any) -> tuple[Tensor, Tensor]:
    """y [B, T, H, N] and the state after it, by a kernel's two functions, which are given contiguous tensors.

    arguments: those of an `Implementation`: parameters and sequences, the last of which y is like, the state, lengths,
        out.
    forward: (inputs, lengths, y, save) -> the state after it, and with `save` what backward needs; fills y. inputs are
        the parameters, the sequences and the state.
    backward: (inputs, lengths, what forward saved, dy, gradient of the state after it) -> gradients of the inputs.
    """
    *tensors, lengths, out = arguments
    inputs = [x.contiguous() for x in tensors]
    if lengths is not None:
        lengths = lengths.long().contiguous()
    if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
        return _Matrix.apply(forward, backward, lengths, *inputs)
    y = torch.empty_like(inputs[-2]) if out is None else out
    state, _ = forward(inputs, lengths, y, save=False)
    return y, state


class _Matrix(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, run: Callable[..., Any], back: Callable[..., Any], lengths: Tensor | None, *inputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        y = torch.empty_like(inputs[-2])
        state, ctx.saved = run(inputs, lengths, y, save=True)
        ctx.back = back
        ctx.save_for_backward(*inputs, lengths)
        return y, state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dstate: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, lengths = ctx.saved_tensors
        return None, None, None, *ctx.back(inputs, lengths, ctx.saved, dy.contiguous(), dstate.contiguous())
