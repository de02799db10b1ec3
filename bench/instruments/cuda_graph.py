"""What a CUDA device does in a call, replayed without the Python between its kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

WARM_UP = 3  # calls before one is captured


class Captured(NamedTuple):
    """replay: does the same with the same tensors. output: what the call returned, which each replay writes anew."""

    replay: Callable[[], None]
    output: Any


def _nothing() -> None:
    pass


def capture(call: Callable[[], object], before: Callable[[], None] = _nothing) -> Captured | None:
    """`call` as a graph; None where it waits for the device or allocates by itself. before: is called before each call
    and replay, to bring back what it changes.

    Raises RuntimeError where a replay leaves the results unwritten.
    """
    try:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                before()
                call()
            before()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = call()
    except RuntimeError:
        torch.cuda.synchronize()
        return None
    results = [x for x in (output if isinstance(output, tuple) else (output,)) if isinstance(x, torch.Tensor)]
    for result in results:
        result.fill_(torch.nan)
    before()
    graph.replay()
    if not all(result.isfinite().all() for result in results):
        raise RuntimeError("a captured graph does not write its results")
    return Captured(graph.replay, output)
