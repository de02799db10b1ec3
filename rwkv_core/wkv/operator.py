"""What a recurrent operator is: one function, several implementations of it, and when which of them serves."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rwkv_core.errors import BadInput

ORACLE = "reference"  # every operator has an implementation of this name, which the others are compared with
KERNELS = {"cpu": "c", "cuda": "triton"}  # the compiled implementation of a device
FALLBACK = "torch"
FLA_ROUNDING = 2**-10  # flash-linear-attention takes products in TensorFloat-32, which has so many bits


def _serves_all(device: torch.device, dtype: torch.dtype) -> str | None:
    return None


def triton_lacks(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why kernels in Triton cannot serve tensors of that device and type; None where they can."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    import triton

    if device.type != "cuda" and not triton.knobs.runtime.interpret:
        return f"it runs on a CUDA device, not on {device.type}"
    if dtype == torch.float64:
        return "it computes in float32"
    return None


def fla_lacks(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why flash-linear-attention cannot serve tensors of that device and type; None where it can."""
    if device.type != "cuda":
        return f"it runs on a CUDA device, not on {device.type}"
    if importlib.util.find_spec("fla") is None:
        return "flash-linear-attention is not installed"
    if dtype == torch.float64:
        return "it computes in float32"
    return None


@dataclass(frozen=True)
class Implementation:
    """One way to compute an operator.

    run: takes the operator's tensors as the operator has checked and cast them.
    lacks: why it cannot serve tensors of a device and type; None where it can.
    half: whether it reads float16 and bfloat16; the others are given float32.
    gradients: whether it has any.
    rounding: of the factors of its products, relative to them, where these are not in full float32.
    """

    run: Callable[..., Any]
    lacks: Callable[[torch.device, torch.dtype], str | None] = _serves_all
    half: bool = False
    gradients: bool = True
    rounding: float = 0.0


@dataclass(frozen=True, eq=False)
class Operator:
    """A recurrence over a sequence.

    name: as in records.
    call: (*inputs, out=None, impl="auto", ...) -> y and the state after it. y is [B, T, C], or [B, T, H, N] of H heads
        with N channels each.
    implementations: by name, `reference` among them.
    example: ((B, T, C), device, dtype, seed) -> inputs of `call`, the last two of y's shape, and a gradient of y.
    moved: how many tensors of y's size a pass must read or write, by direction (forward, forward+backward).
    multiply_adds: of a token and a head with N channels, in N^2, by direction: what the recurrence, token by token,
        does with each entry of a state; a factor alone is one too. The backward pass makes the states again.
        Empty where a state is no matrix: its arithmetic is nothing beside its memory.
    """

    name: str
    call: Callable[..., Any]
    implementations: Mapping[str, Implementation]
    example: Callable[..., tuple[tuple[Tensor, ...], Tensor]]
    moved: Mapping[str, int] = field(default_factory=dict)
    multiply_adds: Mapping[str, int] = field(default_factory=dict)

    def known(self, impl: str) -> str:
        """`impl` itself. Raises BadInput where there is none of that name."""
        if impl != "auto" and impl not in self.implementations:
            names = ", ".join(self.implementations)
            raise BadInput(f"no implementation {impl!r} of {self.name}: choose auto, {names}")
        return impl

    @functools.cache  # noqa: B019 an operator lives as long as the process
    def choose(self, impl: str, device: torch.device, dtype: torch.dtype, gradients: bool = False) -> str:
        """The implementation that `impl` stands for, for tensors of that device and type, with or without gradients.

        auto: the compiled kernel of the device where it can do this, else plain torch. Raises BadInput where the
        implementation does not exist or cannot do it.
        """
        if self.known(impl) != "auto":
            if reason := self._lacks(self.implementations[impl], device, dtype, gradients):
                raise BadInput(f"the implementation {impl!r} of {self.name} cannot be used here: {reason}")
            return impl
        name = KERNELS.get(device.type, FALLBACK)
        kernel = self.implementations.get(name)
        return FALLBACK if kernel is None or self._lacks(kernel, device, dtype, gradients) else name

    def _lacks(
        self, implementation: Implementation, device: torch.device, dtype: torch.dtype, gradients: bool
    ) -> str | None:
        if gradients and not implementation.gradients:
            return f"it has no gradients; choose auto or {FALLBACK}"
        return implementation.lacks(device, dtype)
