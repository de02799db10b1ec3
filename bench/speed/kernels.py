"""WKV alone: each implementation beside the plain loop, transformers' and fla's, and the floor that memory sets.

The model gives the number of channels and nothing else. Before anything is timed, every contender's results are
compared with the oracle's in float64.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from bench.instruments.race import race
from evals.experiment import AtLeast, Experiment
from rwkv_core import wkv
from rwkv_core.errors import Unsupported
from rwkv_core.spec import ModelSpec
from rwkv_core.wkv import reference

VERSION = 1

TENSORS = {"forward": 3, "forward+backward": 8}  # of [B, T, C], read or written: k, v, y; then k, v, dy, dk, dv
COPY_BYTES = 1 << 30  # what the floor of a GPU is measured with: beyond every cache
QUADRATIC = 1 << 20  # elements above which transformers' loop is not asked for gradients: their time grows with T^2
AGREEMENT = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}  # ours, of the largest entry
PEERS = 5e-2  # a peer that is further off computes something else, and is not timed
SMALLEST = 1e-2  # errors of results smaller than this are of this: a true gradient may be 0

Function = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def run(
    spec: ModelSpec,
    *,
    device: str,
    dtype: str,
    direction: Literal["forward", "forward+backward"] = "forward",
    batch: Annotated[int, AtLeast(1)] = 1,
    tokens: Annotated[int, AtLeast(1)] = 1024,
    rounds: Annotated[int, AtLeast(3)] = 25,
    threads: Annotated[int, AtLeast(0)] = 1,
    seed: Annotated[int, AtLeast(0)] = 0,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Time WKV's y, or y and the gradients of w, u, k and v, by each implementation in turn, at the model's width.

    direction: forward alone, or forward and backward.
    batch: sequences, B of k and v [B, T, C].
    tokens: of each, T.
    rounds: turns that each contender gets.
    threads: of torch; 0 leaves its choice.
    seed: of the random inputs.

    Returns metrics (`errors` of the largest entry, `bytes` that must move, `floor_bytes` that the floor moved) and the
    samples of a race. Raises RuntimeError where one of our own implementations is wrong.
    """
    if spec.family != "rwkv4":
        raise Unsupported(f"{spec.name} has no WKV; the kernels are measured at the width of an RWKV-4")
    if threads:
        torch.set_num_threads(threads)
    inputs = make_inputs((batch, tokens, spec.width), device, getattr(torch, dtype), seed)
    calls = contenders(device, direction, inputs)
    if torch.get_num_threads() > 1 and "c" in calls:
        calls["c, one thread"] = functools.partial(_on_one_thread, calls["c"])
    errors = _errors(calls, direction, inputs)
    refused = {
        name: errors.pop(name) for name in calls if name not in wkv.IMPLEMENTATIONS and not errors[name] <= PEERS
    }
    calls = {name: call for name, call in calls.items() if name not in refused}
    moving, floor_bytes = floor(device, inputs)
    samples, graphed = race(
        {"floor": moving, **calls}, device, rounds, graphs=[n for n in ("triton", "torch", "fla") if n in calls]
    )
    metrics = {
        "errors": errors,
        "refused": {name: repr(error) for name, error in refused.items()},
        "channels": spec.width,
        "bytes": TENSORS[direction] * inputs[2].nbytes,
        "floor_bytes": floor_bytes,
        "graphed": graphed,
        "threads": torch.get_num_threads(),
    }
    return metrics, samples


def _on_one_thread(call: Callable[[], Any]) -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return call()
    finally:
        torch.set_num_threads(threads)


def make_inputs(shape: tuple[int, int, int], device: str, dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, ...]:
    """w, u [C] float32, k, v and dy [B, T, C]: decays as a trained model has them, the rest normal."""
    generator = torch.Generator().manual_seed(seed)
    w = -torch.exp(torch.empty(shape[2]).uniform_(-8, 3, generator=generator))
    u = torch.randn(shape[2], generator=generator)
    k, v, dy = (torch.randn(shape, generator=generator).to(device, dtype) for _ in range(3))
    return w.to(device), u.to(device), k, v, dy


def contenders(device: str, direction: str, inputs: Sequence[Tensor]) -> dict[str, Callable[[], Any]]:
    """What this machine can run, as calls that return y, or y and the four gradients."""
    w, u, k, v, dy = inputs
    functions: dict[str, Function] = {"loop": _loop, "transformers": _transformers()}
    if direction != "forward" and k.numel() > QUADRATIC:
        del functions["transformers"]
    for name, implementation in wkv.IMPLEMENTATIONS.items():
        served = not implementation.lacks(k.device, torch.float32)
        if served and name != "reference" and (name != "triton" or device == "cuda"):  # no race for its interpreter
            functions[name] = functools.partial(_ours, impl=name)
    if device == "cuda" and (fla := _fla()) is not None:
        functions["fla"] = fla
    if direction == "forward":
        out = torch.empty_like(v)
        calls: dict[str, Callable[[], Any]] = {n: functools.partial(f, w, u, k, v) for n, f in functions.items()}
        for name in wkv.IMPLEMENTATIONS.keys() & calls.keys():
            calls[name] = functools.partial(_ours, w, u, k, v, impl=name, out=out)
        return calls
    return {name: functools.partial(_both, f, (w, u, k, v), dy) for name, f in functions.items()}


def _ours(w: Tensor, u: Tensor, k: Tensor, v: Tensor, impl: str, out: Tensor | None = None) -> Tensor:
    return wkv.wkv4(w, u, k, v, out=out, impl=impl)[0]


def _both(function: Function, inputs: Sequence[Tensor], dy: Tensor) -> tuple[Tensor, ...]:
    leaves = [x.detach().requires_grad_() for x in inputs]
    y = function(*leaves)
    return y.detach(), *torch.autograd.grad(y, leaves, dy.to(y.dtype))


def _loop(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What one writes first: the recurrence in torch, token by token, in float32."""
    state = wkv.initial_state(len(k), k.shape[2], k.device, torch.float32)
    return reference.loop(w, u, k.float(), v.float(), state, None)[0]


def _transformers() -> Function:
    from transformers.models.rwkv.modeling_rwkv import rwkv_linear_attention_cpu

    def run(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return rwkv_linear_attention_cpu(torch.log(-w), u, k, v)[0]

    return run


def _fla() -> Function | None:
    """flash-linear-attention's kernel, where it is installed."""
    if importlib.util.find_spec("fla") is None:
        return None
    from fla.ops.rwkv4 import fused_recurrent_rwkv4

    def run(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
        state = torch.zeros(len(k), 3, 1, k.shape[2], device=k.device)
        state[:, 2] = -1e38
        return fused_recurrent_rwkv4(torch.log(-w), u, k, v, state)[0]

    return run


def floor(device: str, inputs: Sequence[Tensor]) -> tuple[Callable[[], Any], int]:
    """What moves bytes and does nothing else: on a CPU reading k and v and writing y, on a GPU a large copy."""
    if device == "cuda":
        source = torch.empty(COPY_BYTES, dtype=torch.uint8, device=device)
        return functools.partial(torch.empty_like(source).copy_, source), 2 * COPY_BYTES
    _, _, k, v, _ = inputs
    return functools.partial(torch.add, k, v, out=torch.empty_like(k)), 3 * k.nbytes


def _errors(calls: dict[str, Callable[[], Any]], direction: str, inputs: Sequence[Tensor]) -> dict[str, float]:
    """The largest difference from the oracle in float64, of the largest entry of each result."""
    *leaves, dy = (x.double() for x in inputs)
    oracle = functools.partial(_ours, impl="reference")
    exact = [oracle(*leaves)] if direction == "forward" else _both(oracle, leaves, dy)
    errors = {}
    for name, call in calls.items():
        found = [call()] if direction == "forward" else call()
        pairs = zip(found, exact, strict=True)
        largest = [(f.double() - e).abs().max() / e.abs().max().clamp(min=SMALLEST) for f, e in pairs]
        errors[name] = float(torch.stack(largest).max())  # NaN where one of them is
        bound = AGREEMENT[inputs[2].dtype]
        if name in wkv.IMPLEMENTATIONS and not errors[name] <= bound:
            raise RuntimeError(f"{name} is off by {errors[name]:.1e} of the largest entry, more than {bound:.0e}")
    return errors


EXPERIMENT = Experiment(run, version=VERSION, subject="spec", timed=True, grows=("batch", "tokens"))
