"""Every implementation of every recurrence against its oracle: what each case gives, and what it learns."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from rwkv_core.wkv import OPERATORS, operator
from rwkv_core.wkv.operator import ORACLE
from tests.checks.wkv_cases import CASES, check

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
STEPS = 50


def device_of(impl: str) -> str:
    """Where it is tried."""
    return DEVICE if impl in ("triton", "fla") else "cpu"


def here(name: str, impl: str) -> Any:
    """A mark that leaves out what this machine lacks."""
    reason = OPERATORS[name].implementations[impl].lacks(torch.device(device_of(impl)), torch.float32)
    return pytest.mark.skipif(reason is not None, reason=str(reason))


def every_case() -> Iterator[Any]:
    for name, suite in CASES.items():
        for impl in OPERATORS[name].implementations:
            for case in suite.cases(impl == "triton" and DEVICE == "cpu"):
                # the oracle is beside itself, and slow; fla's kernels are made for heads of whole tiles
                if (impl != ORACLE or case.tokens < 1000) and (impl != "fla" or case.channels % 16 == 0):
                    yield pytest.param(name, impl, case, marks=here(name, impl), id=f"{name}-{impl}-{case}")


@pytest.mark.parametrize(("name", "impl", "case"), list(every_case()))
def test_forward_and_gradients(name: str, impl: str, case: Any) -> None:
    check(name, impl, case, device_of(impl))


@functools.cache
def learned(name: str, impl: str) -> list[float]:
    """Losses of a linear layer before the recurrence and one behind it, by plain gradient descent."""
    device, suite = device_of(impl), CASES[name]
    generator = torch.Generator().manual_seed(3)
    count = {"wkv4": 4, "wkv6": 5, "wkv7": 6}[name]
    x, target = (0.5 * torch.randn(2, 12, 6, generator=generator).to(device) for _ in range(2))
    weights = [(0.4 * torch.randn(6, 6, generator=generator)).to(device).requires_grad_() for _ in range(count + 1)]
    losses = []
    for _ in range(STEPS):
        y, _ = suite.call(suite.trained(*(x @ weight for weight in weights[:-1])), {}, None, impl)
        loss = (y.reshape(x.shape) @ weights[-1] - target).square().mean()
        losses.append(float(loss.detach()))
        with torch.no_grad():
            for weight, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                weight -= 0.2 * slope
    return losses


@pytest.mark.parametrize(
    ("name", "impl"),
    [
        pytest.param(name, impl, marks=here(name, impl))
        for name in CASES
        for impl, implementation in OPERATORS[name].implementations.items()
        if impl != ORACLE and implementation.gradients and device_of(impl) == "cpu" and impl != "triton"
    ],
)
def test_every_implementation_learns_the_same(name: str, impl: str) -> None:
    exact, found = learned(name, ORACLE), learned(name, impl)
    assert exact[-1] < 0.9 * exact[0], "nothing was learned"
    assert found == pytest.approx(exact, rel=1e-5)


def test_what_has_no_gradients_is_not_chosen_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setitem(operator.KERNELS, DEVICE, "triton")
    operator.Operator.choose.cache_clear()
    try:
        for name in ("wkv6", "wkv7"):
            suite, case = CASES[name], CASES[name].cases(True)[1]
            inputs = suite.make(case, DEVICE)
            chosen = OPERATORS[name].choose
            assert chosen("auto", torch.device(DEVICE), torch.float32) == "triton"
            assert chosen("auto", torch.device(DEVICE), torch.float32, gradients=True) == "torch"
            leaves: dict[str, Tensor] = {key: x.requires_grad_() for key, x in inputs.items()}
            y, _ = suite.call(leaves, {}, None, "auto")
            assert y.requires_grad
            with pytest.raises(
                operator.BadInput, match=f"'triton' of {name} .* has no gradients; choose auto or torch"
            ):
                suite.call(leaves, {}, None, "triton")
            with torch.no_grad():
                torch.testing.assert_close(suite.call(leaves, {}, None, "triton")[0], y, rtol=1e-5, atol=1e-5)
    finally:
        operator.Operator.choose.cache_clear()
