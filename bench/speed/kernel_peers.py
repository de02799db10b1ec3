"""Implementations of the operators by others, and what one writes first: functions of an operator's inputs -> y."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.speed import compiled_loops
from bench.speed.compiled_loops import Function
from rwkv_core.wkv import matrix_state
from rwkv_core.wkv.wkv4 import initial_state
from rwkv_core.wkv.wkv4 import reference as reference4
from rwkv_core.wkv.wkv4.reference import State
from rwkv_core.wkv.wkv6 import reference as reference6
from rwkv_core.wkv.wkv7 import reference as reference7

QUADRATIC = 1 << 20  # elements above which transformers' loop is not asked for gradients: their time grows with T^2


def wkv4(device: str, direction: str, elements: int) -> dict[str, Function]:
    """Of RWKV-4's, those that this machine can run over k and v of so many elements."""
    peers: dict[str, Function] = {"loop": functools.partial(_loop, reference4.loop, _sums)}
    if direction == "forward" or elements <= QUADRATIC:
        peers["transformers"] = _transformers()
    if device == "cpu" and direction == "forward" and (numba := compiled_loops.numba()) is not None:
        peers["numba"] = numba
    if device == "cpu" and (compiled := compiled_loops.torch_compile(reference4.loop, _sums, 2)) is not None:
        peers["torch.compile"] = compiled
    if device == "cuda" and (fla := _fla()) is not None:
        peers["fla"] = fla
    return peers


def with_matrix_states(
    loop: Callable[..., tuple[Tensor, Tensor]], sequences: int, device: str, direction: str, elements: int
) -> dict[str, Function]:
    """Of a recurrence with a matrix a head and so many sequences among its inputs."""
    peers: dict[str, Function] = {"loop": functools.partial(_loop, loop, _matrices)}
    if device == "cpu" and (compiled := compiled_loops.torch_compile(loop, _matrices, sequences)) is not None:
        peers["torch.compile"] = compiled
    return peers


def _sums(v: Tensor) -> State:
    return initial_state(len(v), v.shape[2], v.device, torch.float32)


def _matrices(v: Tensor) -> Tensor:
    batch, _, heads, size = v.shape
    return matrix_state.initial_state(batch, heads, size, v.device, torch.float32)


def _loop(loop: Callable[..., Any], empty: Callable[[Tensor], Any], *inputs: Tensor) -> Tensor:
    """The recurrence in torch, token by token, in float32."""
    y: Tensor = loop(*(x.float() for x in inputs), empty(inputs[-1]), None)[0]
    return y


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


PEERS: dict[str, Callable[[str, str, int], dict[str, Function]]] = {  # by operator
    "wkv4": wkv4,
    "wkv6": functools.partial(with_matrix_states, reference6.loop, 4),
    "wkv7": functools.partial(with_matrix_states, reference7.loop, 6),
}
