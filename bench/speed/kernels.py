"""An operator alone: each implementation beside loops, plain and compiled, transformers' and fla's, and the floors of
memory and arithmetic.

The model gives the operator and the number of channels, and nothing else. Before anything is timed, every contender's
results are compared with the oracle's in float64.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from bench.instruments.race import race
from bench.speed.compiled_loops import Function
from bench.speed.kernel_peers import PEERS
from evals.experiment import AtLeast, Experiment
from rwkv_core import dtypes
from rwkv_core.errors import Unsupported
from rwkv_core.rwkv.version import VERSIONS
from rwkv_core.spec import ModelSpec
from rwkv_core.wkv.operator import ORACLE, Operator

VERSION = 3  # of 3 on: nobody finds memory that another has freed

COPY_BYTES = 1 << 30  # what the floor of a GPU is measured with: beyond every cache
PRODUCT = "matrix product"  # what a device's arithmetic is measured with
PRODUCT_SIZE = {"cpu": 1024, "cuda": 4096}  # of its two factors
AGREEMENT = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}  # ours, of the largest entry
PEER_AGREEMENT = 5e-2  # a peer that is further off computes something else, and is not timed
SMALLEST = 1e-2  # errors of results smaller than this are of this: a true gradient may be 0
GRAPHS = ("triton", "torch", "fla")  # what a CUDA graph is tried with
PREALLOCATED = ", output preallocated"  # behind the name of an implementation that is given `out`

Inputs = Sequence[Tensor]


def run(
    spec: ModelSpec,
    *,
    device: str,
    dtype: str,
    direction: Literal["forward", "forward+backward"] = "forward",
    batch: Annotated[int, AtLeast(1)] = 1,
    tokens: Annotated[int, AtLeast(1)] = 1024,
    rounds: Annotated[int, AtLeast(3)] = 25,
    seed: Annotated[int, AtLeast(0)] = 0,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Time WKV's y, or y and the gradient of every input, by each implementation in turn, at the model's width.

    direction: forward alone, or forward and backward.
    batch: sequences, B of k and v [B, T, C], or [B, T, H, N] where a state is a matrix a head.
    tokens: of each, T.
    rounds: turns that each contender gets.
    seed: of the random inputs and of the order of turns.

    Returns metrics (`errors` of the largest entry, `bytes` that must move, `floor_bytes` that the floor moved; where a
    state is a matrix, `multiply_adds` that the recurrence takes, `product_multiply_adds` that the matrix product took)
    and the samples of a race. Raises RuntimeError where one of our own implementations is wrong.
    """
    if dtype in dtypes.QUANTISED:
        raise Unsupported(f"a recurrence has no weights to be in {dtype}; write one of {', '.join(dtypes.ITEMSIZES)}")
    operators = {version.MODEL_TYPE: version.OPERATOR for version in VERSIONS}
    operator = operators.get(spec.architecture["model_type"])
    if operator is None:
        raise Unsupported(f"{spec.name} has no WKV; the kernels are measured at the width of an RWKV")
    inputs, dy = operator.example((batch, tokens, spec.width), device, getattr(torch, dtype), seed)
    calls = contenders(operator, device, direction, inputs, dy)
    if torch.get_num_threads() > 1 and "c" in calls:
        calls["c, one thread"] = functools.partial(_on_one_thread, calls["c"])
    errors = _errors(operator, calls, direction, inputs, dy)
    refused = {
        name: errors.pop(name) for name in calls if not _is_ours(operator, name) and not errors[name] <= PEER_AGREEMENT
    }
    calls = {name: call for name, call in calls.items() if name not in refused}
    moving, floor_bytes = floor(device, inputs)
    floors, arithmetic = {"floor": moving}, {}
    if operator.multiply_adds:
        floors[PRODUCT], product = matrix_product(device)
        arithmetic = {"multiply_adds": multiply_adds(operator, direction, dy), "product_multiply_adds": product}
    graphs = [name for name in calls if _implementation(name) in GRAPHS]
    samples, graphed = race({**floors, **calls}, device, rounds, graphs, seed, fresh=True)
    metrics = {
        "errors": errors,
        "refused": {name: repr(error) for name, error in refused.items()},
        "channels": spec.width,
        "bytes": operator.moved[direction] * dy.nbytes,
        "floor_bytes": floor_bytes,
        "graphed": graphed,
        "threads": torch.get_num_threads(),
        **arithmetic,
    }
    return metrics, samples


def _implementation(contender: str) -> str:
    """Of "c, one thread", c."""
    return contender.partition(",")[0]


def _is_ours(operator: Operator, contender: str) -> bool:
    """Whether it must be right for anything to be timed: what computes in full float32 and was written here."""
    implementation = operator.implementations.get(_implementation(contender))
    return implementation is not None and not implementation.rounding


def _on_one_thread(call: Callable[[], Any]) -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return call()
    finally:
        torch.set_num_threads(threads)


def contenders(
    operator: Operator, device: str, direction: str, inputs: Inputs, dy: Tensor
) -> dict[str, Callable[[], Any]]:
    """What this machine can run, as calls that return y, or y and the gradient of every input.

    Each allocates its results, as who uses an operator has it; ours once more with y preallocated, where no gradients
    are wanted.
    """
    functions = dict(PEERS[operator.name](device, direction, dy.numel())) if operator.name in PEERS else {}
    ours = []
    for name, implementation in operator.implementations.items():
        served = not implementation.lacks(dy.device, torch.float32)
        served &= implementation.gradients or direction == "forward"
        if served and name != ORACLE and (name != "triton" or device == "cuda"):  # no race for its interpreter
            ours.append(name)
            functions[name] = functools.partial(_ours, operator, impl=name)
    if direction != "forward":
        return {name: functools.partial(_both, function, inputs, dy) for name, function in functions.items()}
    calls: dict[str, Callable[[], Any]] = {name: functools.partial(f, *inputs) for name, f in functions.items()}
    out = torch.empty_like(dy)
    for name in ours:
        calls[name + PREALLOCATED] = functools.partial(_ours, operator, *inputs, impl=name, out=out)
    return calls


def _ours(operator: Operator, *inputs: Tensor, impl: str, out: Tensor | None = None) -> Tensor:
    y: Tensor = operator.call(*inputs, out=out, impl=impl)[0]
    return y


def _both(function: Function, inputs: Inputs, dy: Tensor) -> tuple[Tensor, ...]:
    leaves = [x.detach().requires_grad_() for x in inputs]
    y = function(*leaves)
    return y.detach(), *torch.autograd.grad(y, leaves, dy.to(y.dtype))


def floor(device: str, inputs: Inputs) -> tuple[Callable[[], Any], int]:
    """What moves bytes and does nothing else: on a CPU reading the last two inputs and writing as much as one of them,
    on a GPU a large copy.
    """
    if device == "cuda":
        source = torch.empty(COPY_BYTES, dtype=torch.uint8, device=device)
        return functools.partial(torch.empty_like(source).copy_, source), 2 * COPY_BYTES
    *_, k, v = inputs
    return functools.partial(torch.add, k, v, out=torch.empty_like(k)), 3 * k.nbytes


def matrix_product(device: str) -> tuple[Callable[[], Any], int]:
    """A large product in float32, as near to a device's arithmetic as its library comes, and its multiply-adds."""
    size = PRODUCT_SIZE[device]
    a, b, c = torch.ones(3, size, size, device=device)
    return functools.partial(torch.mm, a, b, out=c), size**3


def multiply_adds(operator: Operator, direction: str, y: Tensor) -> int:
    """Of the whole recurrence in that direction, y [B, T, H, N]."""
    return operator.multiply_adds[direction] * y.numel() * y.shape[-1]


def _errors(
    operator: Operator, calls: dict[str, Callable[[], Any]], direction: str, inputs: Inputs, dy: Tensor
) -> dict[str, float]:
    """The largest difference from the oracle in float64, of the largest entry of each result."""
    leaves = [x.double() for x in inputs]
    oracle = functools.partial(_ours, operator, impl=ORACLE)
    exact = [oracle(*leaves)] if direction == "forward" else _both(oracle, leaves, dy.double())
    errors = {}
    for name, call in calls.items():
        results = [call()] if direction == "forward" else call()
        pairs = zip(results, exact, strict=True)
        largest = [(f.double() - e).abs().max() / e.abs().max().clamp(min=SMALLEST) for f, e in pairs]
        errors[name] = float(torch.stack(largest).max())  # NaN where one of them is
        bound = AGREEMENT[dy.dtype]
        if _is_ours(operator, name) and not errors[name] <= bound:
            raise RuntimeError(f"{name} is off by {errors[name]:.1e} of the largest entry, more than {bound:.0e}")
    return errors


EXPERIMENT = Experiment(run, version=VERSION, subject="spec", timed=True, grows=("batch", "tokens"))
