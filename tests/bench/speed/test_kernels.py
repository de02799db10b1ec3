"""The race of recurrences with a matrix a head: who runs, what is compared, the floors of memory and arithmetic."""

from __future__ import annotations

import functools
import types
from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.speed import compiled_loops, kernel_peers, kernels
from reports.views import races
from reports.views.table import read
from rwkv_core.spec import ModelSpec
from rwkv_core.wkv import OPERATORS, matrix_state
from rwkv_core.wkv.operator import Operator
from tests import make

SHAPE = {"model_type": "rwkv", "vocab_size": 96, "hidden_size": 128, "num_hidden_layers": 2}
SPEC = ModelSpec("tiny", "rwkv4", SHAPE, weights="random:0")


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes a minute."""
    monkeypatch.setattr(compiled_loops, "_compiles", lambda: False)


@pytest.mark.parametrize("name", ["wkv6", "wkv7"])
@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
def test_recurrences_with_matrix_states_are_compared_and_timed(
    monkeypatch: pytest.MonkeyPatch, name: str, direction: Any
) -> None:
    monkeypatch.setitem(kernels.PRODUCT_SIZE, "cpu", 32)
    version = types.SimpleNamespace(MODEL_TYPE="rwkv", OPERATOR=OPERATORS[name])
    monkeypatch.setattr(kernels, "VERSIONS", [version])
    metrics, samples = kernels.run(SPEC, device="cpu", dtype="float32", direction=direction, tokens=5, rounds=3)
    assert {"loop", "torch"} <= metrics["errors"].keys() and max(metrics["errors"].values()) < 1e-5
    assert samples["seconds"].keys() == {"floor", "matrix product", *metrics["errors"]}
    assert metrics["bytes"] == OPERATORS[name].moved[direction] * 5 * 128 * 4
    a_state = {("wkv6", "forward"): 3, ("wkv6", "forward+backward"): 11}
    a_state |= {("wkv7", "forward"): 5, ("wkv7", "forward+backward"): 19}
    assert metrics["multiply_adds"] == a_state[name, direction] * 5 * 2 * 64 * 64
    assert metrics["product_multiply_adds"] == 32**3


def test_what_has_no_gradients_or_rounds_is_raced_as_it_can_be() -> None:
    exact = OPERATORS["wkv6"].implementations["torch"]
    rounded = replace(exact, rounding=2**-10, run=lambda u, *rest: exact.run(u * 1.01, *rest))
    implementations = {"reference": OPERATORS["wkv6"].implementations["reference"]}
    implementations |= {"torch": exact, "fla": rounded, "forward": replace(exact, gradients=False)}
    operator = replace(OPERATORS["wkv6"], implementations=implementations)
    operator = replace(operator, call=functools.partial(_called, operator))
    inputs, dy = operator.example((1, 3, 4), "cpu", torch.float32)
    assert "forward" in kernels.contenders(operator, "cpu", "forward", inputs, dy)
    calls = kernels.contenders(operator, "cpu", "forward+backward", inputs, dy)
    assert calls.keys() == {"loop", "torch", "fla"}
    errors = kernels._errors(operator, calls, "forward+backward", inputs, dy)
    assert errors["torch"] < 1e-6 < 1e-3 < errors["fla"], "of another's, an error is no reason to stop"


def _called(operator: Operator, u: torch.Tensor, *sequences: torch.Tensor, out: Any = None, impl: str) -> Any:
    return matrix_state.call(operator, {"u": u}, dict(zip("rwkv", sequences, strict=True)), None, None, out, impl)


def test_the_view_shows_the_share_of_arithmetic() -> None:
    seconds = {"floor": [1.0], "matrix product": [4.0], "torch": [8.0], "loop": [16.0]}
    metrics = {"errors": {"torch": 1e-7, "loop": 1e-7}, "channels": 768, "graphed": [], "threads": 1}
    metrics |= {"bytes": 10, "floor_bytes": 5}
    arithmetic = {"multiply_adds": 30, "product_multiply_adds": 60}
    params = {"direction": "forward", "batch": 1, "tokens": 1024, "rounds": 3, "seed": 0}
    cell = make.cell("kernels", "rwkv4-169m", params, version=kernels.VERSION, weights="random:0", threads=1)
    (view,) = races.views(read([make.record(cell, metrics | arithmetic, {"seconds": seconds}, threads=1)]))
    lines = view.tables[0].frame.set_index("contender")
    assert list(lines["share of peak"]) == ["100.0", "100.0", "25.0", "12.5"]
    assert list(lines["times the floor"]) == ["1.00", "1.00", "4.00", "8.00"]
    assert any("arithmetic floor" in text for text in view.text)
    del seconds["matrix product"]
    (view,) = races.views(read([make.record(cell, metrics, {"seconds": seconds}, threads=1)]))
    assert "share of peak" not in view.tables[0].frame and not any("arithmetic" in text for text in view.text)


def test_blocks_of_a_loop_are_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_loops, "BLOCK", 2)
    monkeypatch.setattr(compiled_loops, "_compiles", lambda: True)
    monkeypatch.setattr(torch, "compile", lambda loop, **_: loop)
    for name in ("wkv6", "wkv7"):
        inputs, dy = OPERATORS[name].example((2, 5, 4), "cpu", torch.float32)
        peers = kernel_peers.PEERS[name]("cpu", "forward", dy.numel())
        assert peers.keys() == {"loop", "torch.compile"}
        torch.testing.assert_close(peers["torch.compile"](*inputs), peers["loop"](*inputs))
