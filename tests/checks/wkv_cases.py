"""What every implementation of every recurrence must satisfy, as plain functions: also for machines without pytest."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from rwkv_core.wkv.operator import ORACLE
from tests.checks import matrix_suites, wkv4_suite
from tests.checks.wkv_suite import Case, Suite

NORMAL_Y = 1e-6  # of the largest |y|
NORMAL_GRADIENT = 3e-6  # of the gradient's largest entry
EXTREME = 1e-4  # both
HALF = {torch.bfloat16: 2**-8, torch.float16: 2**-11}  # a result's own rounding, beside the bounds above
SMALLEST = 1e-2  # errors of results smaller than this are of this: a true gradient may be 0

CASES: dict[str, Suite] = {suite.operator.name: suite for suite in (wkv4_suite.SUITE, *matrix_suites.SUITES)}


def check(operator: str, impl: str, case: Case, device: str = "cpu") -> dict[str, float]:
    """Errors of y, the final state and every gradient against the oracle in float64, of the largest entry.

    Raises AssertionError beyond the bounds. Uninitialised memory is NaN meanwhile, so that what a
    kernel forgets to write is seen.
    """
    implementation = CASES[operator].operator.implementations[impl]
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        found = _results(operator, impl, case, device, implementation.gradients)
    finally:
        torch.use_deterministic_algorithms(deterministic)
    expected, errors = _expected(operator, case, device), {}
    for name, result in found.items():
        exact = expected[name]
        assert result.isfinite().all(), f"{operator} {impl} {case}: {name} is not finite"
        size = max(float(exact.abs().max()), SMALLEST)
        if name == "w" and case.kind != "normal":  # it adds up terms of the size of v's gradient, which may cancel
            size = max(size, float(expected["v"].abs().max()))
        errors[name] = float((result.double() - exact).abs().max()) / size
        bound = EXTREME if case.kind != "normal" else NORMAL_Y if name == "y" else NORMAL_GRADIENT
        bound += HALF.get(case.dtype, 0.0) * (2 if impl == "triton" and device == "cpu" else 1)  # it truncates there
        bound += implementation.rounding
        assert errors[name] <= bound, (
            f"{operator} {impl} {case}: {name} is off by {errors[name]:.1e}, above {bound:.1e}"
        )
    return errors


@functools.cache
def _expected(operator: str, case: Case, device: str) -> dict[str, Tensor]:
    return _results(operator, ORACLE, case, device, exact=True)


def _results(
    operator: str, impl: str, case: Case, device: str, gradients: bool = True, exact: bool = False
) -> dict[str, Tensor]:
    """y, what the final state stands for, and the gradients of a loss on both."""
    suite = CASES[operator]
    inputs, state = suite.make(case, device), suite.state(case, device) if case.state else {}
    backward = case.backward and gradients
    leaves = {
        name: (x.double() if exact else x).detach().requires_grad_(backward)
        for name, x in (*inputs.items(), *state.items())
    }
    lengths = torch.tensor([case.tokens, case.tokens // 3, 0], device=device)[: case.batch] if case.ragged else None

    y, parts = suite.call({n: leaves[n] for n in inputs}, {n: leaves[n] for n in state}, lengths, impl)
    filled = torch.full((case.batch,), case.tokens, device=device) if lengths is None else lengths
    inside = torch.arange(case.tokens, device=device) < filled[:, None]
    y = y * inside.view(*inside.shape, *[1] * (y.ndim - 2))
    end = suite.meaning(*(part[(filled > 0) | case.state] for part in parts))
    results = {"y": y.detach(), "end": end.detach()}
    if not backward:
        return results
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(device, case.dtype)
    found = torch.autograd.grad((y * weight).double().sum() + end.double().sum(), list(leaves.values()))
    return results | dict(zip(leaves, found, strict=True))
