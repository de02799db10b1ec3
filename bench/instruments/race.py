"""Several ways to do the same thing, timed in turn: what disturbs the machine disturbs all of them."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from tqdm import tqdm

from bench.instruments import cuda_graph, disturbance
from bench.instruments.memory import return_freed_memory

SHORTEST_S = 2e-2  # a sample repeats its call for about so long: wide vectors run slower in their first milliseconds
SLOW_S = 4.0  # of its samples; a contender that needs longer gets fewer rounds
FEWEST = 3  # rounds, however slow
LEAST_S = 0.5  # of the samples of each of a pair, in more rounds where they are short
PAIRED_S = 20.0  # of the samples of both; a pair that needs longer gets fewer rounds

Call = Callable[[], object]


def race(
    contenders: Mapping[str, Call],
    device: str,
    rounds: int,
    graphs: Collection[str] = (),
    seed: int = 0,
    paired: bool = False,
    fresh: bool = False,
) -> tuple[dict[str, Any], list[str]]:
    """Samples: `seconds` a call {contender: one a round, the i-th of all from one round} and `disturbance`, of each
    round (see bench.instruments.disturbance); and those of the contenders that ran as a CUDA graph.

    rounds: turns of each contender; a slow one gets fewer.
    graphs: contenders that are tried as a CUDA graph.
    seed: of the order of turns, another in each round.
    paired: every round has all contenders, so that ratios can be taken within it; there are more than `rounds` where
        samples are short, fewer where they are long.
    fresh: no contender finds memory that another has freed: each allocates as it would alone, without a warm heap.

    On a CUDA device the contenders of `graphs` are captured, so that what is timed is the device and not Python;
    as they are without a graph they have ` eager` behind their names. One that cannot be captured is only that.
    """
    calls = dict(contenders)
    graphed = []
    if device == "cuda":
        for name in graphs:
            calls[f"{name} eager"] = calls.pop(name)
            if (captured := cuda_graph.capture(contenders[name])) is not None:
                calls[name] = captured.replay
                graphed.append(name)
    clock = _cuda_seconds if device == "cuda" else _cpu_seconds
    once = {}
    for name, call in calls.items():
        clock(call, 1)  # the first call compiles, allocates and fills caches
        once[name] = clock(call, 1)
    repeats = {name: max(1, math.ceil(SHORTEST_S / seconds)) for name, seconds in once.items()}
    turns = _turns({name: max(seconds, SHORTEST_S) for name, seconds in once.items()}, rounds, paired)
    rounds = max(turns.values()) if paired else rounds

    def measure(number: int) -> dict[str, float]:
        seconds = {}
        for name in _order(calls, seed, number):
            if number < turns[name]:
                if fresh:
                    return_freed_memory()
                if repeats[name] > 1:
                    calls[name]()  # brings its own data back into the caches, which the others have filled
                seconds[name] = clock(calls[name], repeats[name])
        bar.update()
        return seconds

    with tqdm(total=rounds, unit="round", leave=False, disable=None) as bar:
        measured, disturbed = disturbance.watched(measure, rounds, disturbance.Watch(device))
    seconds = {name: [times[name] for times in measured if name in times] for name in calls}
    return {"seconds": seconds, "disturbance": disturbed}, graphed


def _turns(samples: Mapping[str, float], rounds: int, paired: bool) -> dict[str, int]:
    """How many rounds each contender gets. samples: seconds that one of its samples takes."""
    if not paired:
        return {name: max(FEWEST, min(rounds, int(SLOW_S / seconds))) for name, seconds in samples.items()}
    enough = max(rounds, math.ceil(LEAST_S / min(samples.values())))
    return dict.fromkeys(samples, max(FEWEST, min(enough, int(PAIRED_S / sum(samples.values())))))


def _order(names: Collection[str], seed: int, number: int) -> list[str]:
    """Whose turn it is one after another in a round: drawn anew for every second one, reversed in the one between, so
    that of two each goes first as often as the other.
    """
    order = list(names)
    random.Random(f"{seed} {number // 2}").shuffle(order)
    return order[::-1] if number % 2 else order


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
