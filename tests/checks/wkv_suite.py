"""What a case of a recurrence is, and what stands beside an operator's cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rwkv_core.wkv.operator import Operator

Named = Mapping[str, Tensor]


@dataclass(frozen=True)
class Case:
    """One input: kind as its suite's `make` has it, a state to start from, rows of different length, strides.

    channels: of a head where there are heads.
    """

    kind: str
    batch: int
    tokens: int
    channels: int
    state: bool = False
    ragged: bool = False
    strided: bool = False
    dtype: torch.dtype = torch.float32
    backward: bool = True
    heads: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a sequence."""
        heads = (self.heads,) if self.heads else ()
        return (self.batch, self.tokens, *heads, self.channels)

    def __str__(self) -> str:
        flags = [name for name in ("state", "ragged", "strided") if getattr(self, name)]
        return "-".join([self.kind, "x".join(map(str, self.shape)), *flags, str(self.dtype)[6:]])


@dataclass(frozen=True)
class Suite:
    """An operator with its cases.

    cases: (small) -> all of them; small: with few tokens and channels, for Triton's interpreter.
    make: (case, device) -> the inputs by name, in the order of the call, in float32 but for the case's type.
    state: (case, device) -> the parts of a state to start from, by name.
    call: (inputs, parts of a state or nothing, lengths, impl) -> y, and the parts of the state after it, [B, ..] each.
    meaning: (parts of a state in which something was seen) -> what is compared of it.
    trained: from projections [B, T, C] of anything, one an input and of any size, its inputs in their ranges.
    """

    operator: Operator
    cases: Callable[[bool], list[Case]]
    make: Callable[[Case, str], Named]
    state: Callable[[Case, str], Named]
    call: Callable[[Named, Named, Tensor | None, str], tuple[Tensor, tuple[Tensor, ...]]]
    meaning: Callable[..., Tensor]
    trained: Callable[..., Named]


def strided(x: Tensor, first: bool) -> Tensor:
    """The same numbers, not contiguous: rows of the batch beside each other, or every second number."""
    return x.transpose(0, 1).contiguous().transpose(0, 1) if first else torch.stack([x, x], -1)[..., 0]
