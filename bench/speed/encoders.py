"""A training step of Long Range Arena's encoder with one mixer, beside the same encoder with attention.

The complexity table made visible: time and memory against length, everything but the mixer alike.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.instruments.memory import Peak
from bench.instruments.race import race
from evals.experiment import AtLeast, Experiment, OneOf
from evals.lra.encoder import Encoder, Problem, Size, matched
from evals.lra.mixers import KINDS, label
from rwkv_core.errors import BadInput

VERSION = 4  # of 4 on: token shift in C

VALUES, CLASSES = 256, 2  # as Text's


def run(
    *,
    device: str,
    dtype: str,
    mixer: Annotated[str, OneOf(lambda: KINDS)],
    direction: Literal["both", "causal"] = "both",
    batch: Annotated[int, AtLeast(1)] = 1,
    tokens: Annotated[int, AtLeast(16)] = 1024,
    layers: Annotated[int, AtLeast(1)] = 2,
    width: Annotated[int, AtLeast(8)] = 64,
    heads: Annotated[int, AtLeast(1)] = 4,
    inner: Annotated[int, AtLeast(8)] = 256,
    rounds: Annotated[int, AtLeast(3)] = 9,
    seed: Annotated[int, AtLeast(0)] = 0,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Time a training step of Long Range Arena's encoder with a mixer and with attention, in turn, at one budget.

    mixer: what stands in attention's place; a line of configs/mixers.yaml.
    direction: whether it sees later tokens.
    batch: sequences at once.
    tokens: of each, none of them padding.
    layers: of the encoder.
    width: of its blocks.
    heads: of attention.
    inner: hidden width of attention's feed-forward layers; a mixer's follows from the budget.
    rounds: turns that each of the two gets, more where a step is short, fewer where it is long.
    seed: of weights, inputs and the order of turns.

    Returns metrics (`peak_bytes` beyond the weights, of an untimed step each) and the samples of a race. Raises
    Unsupported as the experiment lra does, RuntimeError where a gradient is missing or not finite.
    """
    if dtype != "float32":
        raise BadInput("an encoder is trained in float32; write `dtype: float32`")
    problem = Problem(VALUES, CLASSES, tokens)
    size, both = Size(layers, width, heads, inner), direction == "both"
    sizes = {name: matched(name, size, problem, bidirectional=both) for name in (mixer, "attention")}
    encoders = {}
    for name, matched_size in sizes.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoders[name] = Encoder(name, matched_size, problem, bidirectional=both).to(device)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, problem.values + 1, (batch, tokens), generator=generator).to(device)
    labels = torch.randint(problem.classes, (batch,), generator=generator).to(device)
    calls = {name: functools.partial(_step, encoder, ids, labels) for name, encoder in encoders.items()}
    peaks: dict[str, int] = {}
    for name, call in calls.items():
        call()
        for key, weight in encoders[name].named_parameters():
            if weight.grad is None or not weight.grad.isfinite().all():
                raise RuntimeError(f"{label(name)}: the gradient of {key} is missing or not finite")
        peak = Peak(device)
        with peak.tracking(), peak.watch():
            call()
        peak_metrics = peak.metrics()
        peaks[name] = peak_metrics.get("cuda_peak_bytes", peak_metrics["peak_live_bytes"])
    samples, graphed = race(calls, device, rounds, seed=seed, paired=True)
    metrics = {
        "errors": {},
        "graphed": graphed,
        "channels": width,
        "threads": torch.get_num_threads(),
        "peak_bytes": peaks,
        "titles": {name: label(name) for name in encoders},
        "budget": {name: encoder.budget for name, encoder in encoders.items()},
        "inner": {name: matched_size.inner for name, matched_size in sizes.items()},
    }
    return metrics, samples


def _step(encoder: Encoder, tokens: Tensor, labels: Tensor) -> None:
    """Gradients are made anew and freed with the next step's, as a trainer does it."""
    encoder.zero_grad()
    lengths = torch.full((len(tokens),), tokens.shape[1], device=tokens.device)
    F.cross_entropy(encoder(tokens, lengths), labels).backward()


EXPERIMENT = Experiment(run, version=VERSION, subject="none", timed=True, grows=("batch", "tokens"))
