"""What a recurrent operator is: one function, several implementations of it, and when which of them serves."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rwkv_core.errors import BadInput

ORACLE = "reference"  # every operator has an implementation of this name, which the others are compared with
KERNELS = {"cpu": "c", "cuda": "triton"}  # the compiled implementation of a device
FALLBACK = "torch"


def _serves_all(device: torch.device, dtype: torch.dtype) -> str | None:
    return None


@dataclass(frozen=True)
class Implementation:
    """One way to compute an operator.

    run: takes the operator's tensors as the operator has checked and cast them.
    lacks: why it cannot serve tensors of a device and type; None where it can.
    half: whether it reads float16 and bfloat16; the others are given float32.
    """

    run: Callable[..., Any]
    lacks: Callable[[torch.device, torch.dtype], str | None] = _serves_all
    half: bool = False


@dataclass(frozen=True, eq=False)
class Operator:
    """A recurrence over a sequence.

    name: as in records.
    call: (*inputs, out=None, impl="auto", ...) -> y and the state after it. y is [B, T, C], or [B, T, H, N] of H heads
        with N channels each.
    implementations: by name, `reference` among them.
    example: ((B, T, C), device, dtype, seed) -> inputs of `call`, the last two of y's shape, and a gradient of y.
    moved: how many tensors of y's size a pass must read or write, by direction (forward, forward+backward).
    """

    name: str
    call: Callable[..., Any]
    implementations: Mapping[str, Implementation]
    example: Callable[..., tuple[tuple[Tensor, ...], Tensor]]
    moved: Mapping[str, int] = field(default_factory=dict)

    def known(self, impl: str) -> str:
        """`impl` itself. Raises BadInput where there is none of that name."""
        if impl != "auto" and impl not in self.implementations:
            names = ", ".join(self.implementations)
            raise BadInput(f"no implementation {impl!r} of {self.name}: choose auto, {names}")
        return impl

    @functools.cache  # noqa: B019 an operator lives as long as the process
    def choose(self, impl: str, device: torch.device, dtype: torch.dtype) -> str:
        """The implementation that `impl` stands for, given tensors of that device and type.

        auto: the compiled kernel of the device, with or without gradients, else plain torch. Raises BadInput where the
        implementation does not exist or cannot serve them.
        """
        if self.known(impl) != "auto":
            if reason := self.implementations[impl].lacks(device, dtype):
                raise BadInput(f"the implementation {impl!r} of {self.name} cannot be used here: {reason}")
            return impl
        name = KERNELS.get(device.type, FALLBACK)
        kernel = self.implementations.get(name)
        return FALLBACK if kernel is None or kernel.lacks(device, dtype) else name
