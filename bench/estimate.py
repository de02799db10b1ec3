"""What generation takes at least on this machine, before it is measured: bytes over its bandwidth, operations over its
arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from bench.instruments import limits
from bench.speed.decode import CONTEXTS
from reports.draw import numbers
from reports.records.cell import Cell
from rwkv_core import dtypes
from rwkv_core.spec import ModelSpec


@dataclass(frozen=True)
class Estimate:
    """The least seconds of a token at the shortest and at the longest context, and of the whole cell."""

    shortest: float
    longest: float
    total: float


def least(cell: Cell) -> Estimate | None:
    """None of an experiment that does not generate, and of a device that is not here."""
    if cell.model is None or cell.experiment not in ESTIMATES:
        return None
    if cell.device == "cuda" and not torch.cuda.is_available():
        return None
    return ESTIMATES[cell.experiment](cell, cell.model)


def line(cell: Cell) -> str:
    """What stands behind a cell in a plan: its least times; nothing where they are not known."""
    estimate = least(cell)
    if estimate is None:
        return ""
    ends = numbers.extremes(estimate.shortest, estimate.longest, numbers.milliseconds)
    return f"  (at least {ends} ms a token, {numbers.minutes(estimate.total)} min)"


def total(cells: Iterable[Cell]) -> str:
    """The same of all cells together, of those of which it is known."""
    estimates = [estimate for cell in cells if (estimate := least(cell))]
    if not estimates:
        return ""
    took = numbers.minutes(sum(estimate.total for estimate in estimates))
    return f"; {len(estimates)} cells of generation take at least {took} min, without loading"


def _decode(cell: Cell, spec: ModelSpec) -> Estimate:
    """Each context once, from nothing where it is no longer than a chunk, and the steps of all repeats there."""
    params, limit = cell.params, spec.max_tokens
    wanted = CONTEXTS.read(params["contexts"])
    reached = [n for n in wanted if limit is None or n + params["steps"] <= limit] or wanted[:1]
    tokens = sum(n * params["repeats"] for n in reached if n <= params["chunk"]) + reached[-1]
    steps = [_step(cell, spec, n) for n in reached]
    total = tokens * _compute(cell, spec) + params["repeats"] * params["steps"] * sum(steps)
    return Estimate(steps[0], steps[-1], total)


def _inference(cell: Cell, spec: ModelSpec) -> Estimate:
    """The prompt and the tokens of all repeats; without a cache the whole sequence for each of them."""
    params = cell.params
    contexts = [params["prompt_tokens"] + made for made in range(params["new_tokens"])]
    again = params["protocol"] == "paper" and not spec.recurrent
    steps = [n * _compute(cell, spec) if again else _step(cell, spec, n) for n in contexts]
    return Estimate(
        steps[0], steps[-1], params["repeats"] * (params["prompt_tokens"] * _compute(cell, spec) + sum(steps))
    )


def _step(cell: Cell, spec: ModelSpec, context: int) -> float:
    """Seconds of a token: weights and all caches or states are read once, or the products take longer."""
    size, batch = dtypes.itemsize(cell.dtype, cell.device), cell.params["batch"]
    weights = (spec.parameters - spec.lookup_parameters) * dtypes.weight_bytes(cell.dtype, cell.device)
    read = weights + spec.state_bytes(context, size, batch)
    return max(read / limits.bandwidth(cell.device), _compute(cell, spec))


def _compute(cell: Cell, spec: ModelSpec) -> float:
    """Seconds of the products of a token of each sequence."""
    operations = 2 * cell.params["batch"] * (spec.parameters - spec.lookup_parameters)
    return operations / limits.operations(cell.device, getattr(torch, dtypes.computed(cell.dtype, cell.device)))


ESTIMATES: dict[str, Callable[[Cell, ModelSpec], Estimate]] = {"decode": _decode, "inference": _inference}
