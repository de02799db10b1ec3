"""Whole zero-shot tasks by our scoring and by lm-eval's own, HFLM, with the same weights, threads and data."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Annotated, Any

import torch

from bench.instruments import disturbance
from bench.speed import forward
from evals import identity
from evals.experiment import AtLeast, Experiment, Numbers, OneOf
from evals.zeroshot import run as zeroshot
from evals.zeroshot import tasks
from rwkv_core.spec import LanguageModel

VERSION = 3  # of 2 on: token shift in C; of 3 on: contexts and what follows them in one pass without padding

SIZES = Numbers(1)
OURS = "ours"
FORWARD = "forward_s"


def run(
    model: LanguageModel,
    *,
    device: str,
    task: Annotated[str, OneOf(tasks.catalogue)],
    data: str = "hub",
    tokenizer: str = "own",
    docs: Annotated[int, AtLeast(0)] = 0,
    batch_sizes: Annotated[str, SIZES] = "8, 16, 32",
    rounds: Annotated[int, AtLeast(1)] = 1,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Time a whole zero-shot task by our scoring and by lm-eval's HFLM at each of its batch sizes, in turn.

    task: an entry of configs/tasks.yaml, by the protocol v0.4.
    data: as the experiment zeroshot has it.
    tokenizer: as the experiment zeroshot has it.
    docs: the first so many items; 0 for all.
    batch_sizes: HFLM's. Where 1 is among them, its answers are compared with ours before anything is timed.
    rounds: turns that each of them gets, every other one in reverse order.

    Returns metrics (`difference` of a log-likelihood from HFLM's at batch size 1, the largest, HFLM's softmax being in
    float64; `differing`, what else is not the same, None where nothing was compared) and samples: `seconds` {ours, and
    HFLM's by batch size: one a round}, without what loads and warms up; `forward_s`, of the pure forward (forward.py)
    of what ours read and scored, one a round, unless the task generates text; and `disturbance`, of each round. Raises
    Unsupported for a runtime whose weights HFLM cannot use.
    """
    loaded = tasks.load(task, data, "v0.4", docs)  # first: it says where lm-eval is missing
    from bench.speed import hflm  # here, because it imports lm-eval

    lm = hflm.as_lm(model, device, tokenizer, f"{task} {model.spec.label}")
    module = hflm.causal(model)
    sizes = SIZES.read(batch_sizes)
    difference, differing = None, None
    mine = hflm.ours(loaded, lm, docs if 1 in sizes else 1)  # in any case it warms up
    if 1 in sizes:  # beyond 1,024 the sums in float32 that HFLM makes by default have lost digits
        exact = hflm.peer(lm, module, tokenizer, 1, softmax_dtype=torch.float64)
        difference, differing = hflm.differences(loaded, mine, hflm.theirs(loaded, exact, docs))
    calls: dict[str, Callable[[], hflm.Answers]] = {OURS: functools.partial(hflm.ours, loaded, lm, docs)}
    for size in sizes:
        peer = hflm.peer(lm, module, tokenizer, size)
        hflm.theirs(loaded, peer, 1)
        calls[str(size)] = functools.partial(hflm.theirs, loaded, peer, docs)
    requests: dict[str, int] = {}

    def measure(number: int) -> dict[str, float]:
        seconds = {}
        lm.asker.counts.clear()
        for name in list(calls)[:: -1 if number % 2 else 1]:
            started = time.perf_counter()
            answers = calls[name]()
            seconds[name] = time.perf_counter() - started
            requests[name] = len(answers.responses)
        if read := lm.asker.counts["tokens_read"]:
            seconds[FORWARD] = forward.seconds(model, device, read, lm.asker.counts["positions_scored"])
        return seconds

    measured, disturbed = disturbance.watched(measure, rounds, disturbance.Watch(device))
    metrics = {
        "docs": len(list(tasks.items(loaded, docs))),
        "requests": requests[OURS],
        "difference": difference,
        "differing": differing,
        "data_source": "local" if tasks.local_folder(data, task) else "hub",
        "data_fingerprint": tasks.fingerprint(loaded, docs),
        "window": model.spec.context_length,
        "parameters": model.parameter_count,
    }
    samples = {name: [one[name] for one in measured] for name in measured[0]}
    pure = {FORWARD: samples.pop(FORWARD)} if FORWARD in samples else {}
    return metrics, {"seconds": samples, **pure, "disturbance": disturbed}


EXPERIMENT = Experiment(
    run,
    version=VERSION,
    timed=True,
    reads={"data": zeroshot.identify_data, "tokenizer": identity.tokenizer},
    definition=zeroshot.definition,
)
