"""What does not fit into memory, in smaller parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from rwkv_core.errors import out_of_memory

T = TypeVar("T")


def halving(run: Callable[[list[T]], object], rows: list[T]) -> None:
    """Run a batch, and where memory runs out its halves, down to single rows."""
    try:
        run(rows)
        return
    except Exception as error:
        if len(rows) == 1 or not out_of_memory(error):
            raise
    torch.cuda.empty_cache()  # does nothing where CUDA is not in use
    half = len(rows) // 2
    halving(run, rows[:half])
    halving(run, rows[half:])
