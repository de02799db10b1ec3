"""How many sequences fit into a memory at a context: the batch grows until they no longer do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch

from bench.instruments import memory
from evals.experiment import AtLeast, Experiment
from rwkv_core.decode import greedy
from rwkv_core.errors import Unsupported, out_of_memory
from rwkv_core.load import free_memory
from rwkv_core.spec import LanguageModel

VERSION = 1

CHUNK = 512  # tokens that are read at once
USED = 0.9  # of what is free on a CPU, where nothing says so when it ends


def run(
    model: LanguageModel,
    *,
    device: str,
    context: Annotated[int, AtLeast(1)] = 2048,
    gigabytes: Annotated[int, AtLeast(0)] = 0,
    most: Annotated[int, AtLeast(1)] = 4096,
    seed: Annotated[int, AtLeast(0)] = 0,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Find the largest batch of which a step fits, beside weights and caches or states: one is read, the
    others are copies of it.

    context: tokens that each sequence has read.
    gigabytes: of 10^9 bytes, for all of it; 0 for what is free.
    most: no larger batch is tried.
    seed: of the random tokens.

    Returns metrics (`largest_batch`; `limit_bytes`; `predicted_batch`, by formula from the bytes of the weights and of
    one sequence's cache or state alone) and samples: `tried`, of each batch the bytes that it took, None where it did
    not fit. Raises Unsupported where the positions end before, MemoryError where not one sequence fits.
    """
    spec, limit = model.spec, model.spec.max_tokens
    if limit is not None and context >= limit:
        raise Unsupported(f"{spec.name} has {limit} learned positions; {context} + 1 do not fit")
    free = free_memory(device)
    available = gigabytes * 10**9 - model.parameter_bytes if gigabytes else _usable(device, free)
    one = spec.state_bytes(context + 1, model.itemsize)
    first = _read(model, device, context, seed) if one <= available else None
    tried: list[dict[str, int | None]] = []

    def taken(batch: int) -> int | None:
        needed = batch * one
        fits = first is not None and needed <= available and (free is None or needed <= free)
        took = _step(model, device, first, batch) if fits else None
        tried.append({"batch": batch, "bytes": took})
        return took

    largest = _largest(lambda batch: (took := taken(batch)) is not None and took <= available, most)
    if not largest:
        raise MemoryError(f"{spec.name}: not one sequence of {context} tokens fits into {available / 1e9:.1f} GB")
    metrics = {
        "parameters": model.parameter_count,
        "parameter_bytes": model.parameter_bytes,
        "largest_batch": largest,
        "limit_bytes": available + model.parameter_bytes,
        "predicted_batch": min(most, available // one),
    }
    return metrics, {"tried": tried}


def _usable(device: str, free: int | None) -> int:
    """Bytes beside the weights, which are there already. Raises Unsupported where the system does not tell."""
    if free is None:
        raise Unsupported("this system does not tell how much memory is free; give `gigabytes`")
    return free if device == "cuda" else int(USED * free)


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest batch that fits, doubled until one does not and then halved between; 0 where not one does."""
    good, bad = 0, 1
    while fits(min(bad, most)):
        good = min(bad, most)
        if good == most:
            return most
        bad *= 2
    while bad - good > max(1, good // 32):
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


@torch.inference_mode()
def _read(model: LanguageModel, device: str, context: int, seed: int) -> Any:
    """The state of one sequence of random tokens, with room for one more."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(model.spec.vocab_size, (1, context), generator=generator).to(device)
    state = model.reserve(context + 1)
    for part in tokens.split(CHUNK if model.ragged else context, 1):
        _, state = model.hidden(part, state, last=True)
    return state


@torch.inference_mode()
def _step(model: LanguageModel, device: str, first: Any, batch: int) -> int | None:
    """Bytes that a step of so many copies of `first` takes with them; None where memory ends."""

    def step() -> None:
        rows = torch.zeros(batch, dtype=torch.long, device=device)
        hidden, _ = model.hidden(rows[:, None], model.take(first, rows), last=True)
        greedy(model.logits(hidden[:, -1]))

    try:
        return memory.working(device, step)
    except Exception as error:
        if not out_of_memory(error):
            raise
        if device == "cuda":
            torch.cuda.empty_cache()
        return None


# timed: nothing beside it may take memory
EXPERIMENT = Experiment(run, version=VERSION, timed=True, grows=("context",))
