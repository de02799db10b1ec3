"""Several ways to do the same thing, timed in turn: what disturbs the machine disturbs all of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from tqdm import tqdm

from bench.instruments import disturbance

SHORTEST_S = 2e-2  # a sample repeats its call for about so long: wide vectors run slower in their first milliseconds
SLOW_S = 4.0  # of its samples; a contender that needs longer gets fewer rounds
FEWEST = 3  # rounds, however slow

Call = Callable[[], object]


def race(
    contenders: Mapping[str, Call], device: str, rounds: int, graphs: Collection[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """Samples: `seconds` a call {contender: one a round} and `disturbance`, of each round (see
    bench.instruments.disturbance); and those of the contenders that ran as a CUDA graph.

    On a CUDA device the contenders of `graphs` are captured, so that what is timed is the device and not Python;
    as they are without a graph they have ` eager` behind their names. One that cannot be captured is only that.
    """
    calls = dict(contenders)
    graphed = []
    if device == "cuda":
        for name in graphs:
            calls[f"{name} eager"] = calls.pop(name)
            if (replay := _capture(contenders[name])) is not None:
                calls[name] = replay
                graphed.append(name)
    clock = _cuda_seconds if device == "cuda" else _cpu_seconds
    once = {}
    for name, call in calls.items():
        clock(call, 1)  # the first call compiles, allocates and fills caches
        once[name] = clock(call, 1)
    repeats = {name: max(1, math.ceil(SHORTEST_S / seconds)) for name, seconds in once.items()}
    turns = {name: max(FEWEST, min(rounds, int(SLOW_S / max(seconds, SHORTEST_S)))) for name, seconds in once.items()}

    def measure(number: int) -> dict[str, float]:
        seconds = {}
        for name, call in calls.items():
            if number < turns[name]:
                if repeats[name] > 1:
                    call()  # brings its own data back into the caches, which the others have filled
                seconds[name] = clock(call, repeats[name])
        bar.update()
        return seconds

    with tqdm(total=rounds, unit="round", leave=False, disable=None) as bar:
        measured, disturbed = disturbance.watched(measure, rounds, disturbance.Watch(device))
    seconds = {name: [times[name] for times in measured if name in times] for name in calls}
    return {"seconds": seconds, "disturbance": disturbed}, graphed


def _cpu_seconds(call: Call, repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - started) / repeats


def _cuda_seconds(call: Call, repeats: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3 / repeats


def _capture(call: Call) -> Call | None:
    """`call` as a graph that can be replayed; None where it waits for the device or allocates by itself."""
    try:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                call()
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
    graph.replay()
    if not all(result.isfinite().all() for result in results):
        raise RuntimeError("a captured graph does not write its results")
    return graph.replay
