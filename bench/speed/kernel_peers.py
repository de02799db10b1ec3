"""Implementations of the operators by others, and what one writes first: functions of an operator's inputs -> y."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor

from bench.speed import compiled_loops
from bench.speed.compiled_loops import Function
from rwkv_core.wkv.wkv4 import initial_state, reference

QUADRATIC = 1 << 20  # elements above which transformers' loop is not asked for gradients: their time grows with T^2


def wkv4(device: str, direction: str, elements: int) -> dict[str, Function]:
    """Of RWKV-4's, those that this machine can run over k and v of so many elements."""
    peers: dict[str, Function] = {"loop": _loop}
    if direction == "forward" or elements <= QUADRATIC:
        peers["transformers"] = _transformers()
    if device == "cpu" and direction == "forward" and (numba := compiled_loops.numba()) is not None:
        peers["numba"] = numba
    if device == "cpu" and (compiled := compiled_loops.torch_compile()) is not None:
        peers["torch.compile"] = compiled
    if device == "cuda" and (fla := _fla()) is not None:
        peers["fla"] = fla
    return peers


def _loop(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The recurrence in torch, token by token, in float32."""
    state = initial_state(len(k), k.shape[2], k.device, torch.float32)
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


PEERS: dict[str, Callable[[str, str, int], dict[str, Function]]] = {"wkv4": wkv4}  # by operator
