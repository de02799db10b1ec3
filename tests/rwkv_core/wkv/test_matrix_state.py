"""The recurrences whose state is a matrix a head: their oracles against the papers' equations, states, rows, calls."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rwkv_core.errors import BadInput
from rwkv_core.wkv import OPERATORS, chunks
from rwkv_core.wkv.wkv6 import wkv6
from rwkv_core.wkv.wkv7 import wkv7
from tests.checks.wkv_cases import CASES, check
from tests.checks.wkv_suite import Case
from tests.rwkv_core.wkv.test_operators import device_of, here

NAMES = ("wkv6", "wkv7")
EVERY = [
    pytest.param(name, impl, marks=[here(name, impl), *[pytest.mark.gpu] * (impl == "triton")])
    for name in NAMES
    for impl in OPERATORS[name].implementations
    if impl != "fla"  # whose kernels are made for larger heads than these
]


def close(result: Tensor, exact: Tensor) -> None:
    assert (result - exact).abs().max() <= 2e-6 * exact.abs().max()


def example(name: str, impl: str, *shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    batch, tokens, heads, size = shape
    case = Case("normal", batch, tokens, size, heads=heads, dtype=dtype)
    return tuple(CASES[name].make(case, device_of(impl)).values())


def cut(name: str, inputs: tuple[Tensor, ...], rows: slice, tokens: slice) -> list[Tensor]:
    """Some rows and tokens of sequences; parameters whole."""
    return [x[rows, tokens] if x.ndim == 4 else x for x in inputs]


def state_of(impl: str, *shape: int) -> Tensor:
    return torch.randn(*shape, shape[-1], generator=torch.Generator().manual_seed(5)).to(device_of(impl))


def test_the_oracle_of_wkv6_is_the_equation() -> None:
    """Every pair of tokens by itself, without a state."""
    u, r, w, k, v = (x.double() for x in example("wkv6", "reference", 2, 9, 2, 5))
    expected = torch.zeros_like(v)
    for t in range(9):
        for i in range(t + 1):
            weight = u if i == t else torch.exp(w[:, i + 1 : t].sum(1))
            expected[:, t] += (r[:, t] * weight * k[:, i]).sum(-1, keepdim=True) * v[:, i]
    y, state = wkv6(u, r, w, k, v, impl="reference")
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    after = sum((torch.exp(w[:, i + 1 :].sum(1)) * k[:, i])[..., :, None] * v[:, i][..., None, :] for i in range(9))
    torch.testing.assert_close(state, after, rtol=1e-12, atol=1e-12)


def test_the_oracle_of_wkv7_is_the_equation() -> None:
    """Every token's outer product goes through the transition matrices of all that follow."""
    r, w, k, v, a, b = (x.double() for x in example("wkv7", "reference", 2, 9, 2, 5))
    transitions = torch.diag_embed(torch.exp(w)) + b[..., :, None] * a[..., None, :]
    expected = torch.zeros_like(v)
    after = torch.zeros(2, 2, 5, 5, dtype=torch.float64)
    for i in range(9):
        written = k[:, i][..., :, None] * v[:, i][..., None, :]
        for t in range(i, 9):
            written = written if t == i else transitions[:, t] @ written
            expected[:, t] += (r[:, t][..., None, :] @ written)[..., 0, :]
        after += written
    y, state = wkv7(r, w, k, v, a, b, impl="reference")
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state, after, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tokens", [1, 6])
def test_gradcheck(name: str, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK", 2)  # so that there are several, and several pieces
    monkeypatch.setitem(chunks.PIECES, "cpu", 1)
    inputs = [x.double().requires_grad_() for x in example(name, "torch", 2, tokens, 1, 2)]
    state, lengths = state_of("torch", 2, 1, 2).double().requires_grad_(), torch.tensor([tokens, tokens - 1])

    def run(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        y, end = OPERATORS[name].call(*inputs, lengths, impl="torch")
        inside = torch.arange(tokens) < lengths[:, None]
        return y * inside[..., None, None], end

    assert torch.autograd.gradcheck(run, (*inputs, state))


@pytest.mark.parametrize("name", NAMES)
def test_many_pieces_give_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(chunks.PIECES, "cpu", 1)
    for case in CASES[name].cases(False):
        if 17 < case.tokens < 1000:
            check(name, "torch", case)


@pytest.mark.parametrize("slope", [-1.5, -30.0, -1e6])
def test_torch_is_right_for_decays_that_rwkv7_does_not_have(slope: float) -> None:
    r, w, k, v, a, b = example("wkv7", "torch", 2, 40, 1, 8)
    w = torch.where(torch.arange(40)[:, None, None] % 7 == 3, slope, w)
    out = torch.full_like(v, torch.nan)
    for y, after in (wkv7(r, w, k, v, a, b, impl="torch"), wkv7(r, w, k, v, a, b, out=out, impl="torch")):
        exact, end = wkv7(r, w, k, v, a, b, impl="reference")
        close(y, exact)
        close(after, end)


@pytest.mark.parametrize(("name", "impl"), EVERY)
@pytest.mark.parametrize("at", [1, 16])
def test_carried_state_continues(name: str, impl: str, at: int) -> None:
    inputs, start, run = example(name, impl, 2, 23, 1, 5), state_of(impl, 2, 1, 5), OPERATORS[name].call
    whole, end = run(*inputs, start, impl="reference")
    first, state = run(*cut(name, inputs, slice(None), slice(at)), start, impl=impl)
    second, state = run(*cut(name, inputs, slice(None), slice(at, None)), state, impl=impl)
    close(torch.cat([first, second], 1), whole)
    close(state, end)


@pytest.mark.parametrize(("name", "impl"), EVERY)
def test_ragged_rows_end_where_they_end(name: str, impl: str) -> None:
    inputs, start, run = example(name, impl, 5, 20, 1, 5), state_of(impl, 5, 1, 5), OPERATORS[name].call
    lengths = torch.tensor([20, 1, 17, 0, 16], device=start.device)
    y, state = run(*inputs, start, lengths, impl=impl)
    assert y.isfinite().all()
    assert torch.equal(state[3], start[3]), "a row without a token keeps its state"
    for row, length in enumerate(lengths.tolist()):
        if length:
            alone = cut(name, inputs, slice(row, row + 1), slice(length))
            exact, end = run(*alone, start[row : row + 1], impl="reference")
            close(y[row : row + 1, :length], exact)
            close(state[row : row + 1], end)


@pytest.mark.parametrize(("name", "impl"), EVERY)
def test_lengths_beyond_the_row_are_the_row(name: str, impl: str) -> None:
    inputs, run = example(name, impl, 2, 5, 1, 3), OPERATORS[name].call
    whole, state = run(*inputs, impl=impl)
    y, end = run(*inputs, lengths=torch.tensor([9, 5], device=whole.device), impl=impl)
    assert torch.equal(y, whole) and torch.equal(end, state)
    _, end = run(*inputs, lengths=torch.tensor([-3, 0], device=whole.device), impl=impl)
    assert not end.any()


@pytest.mark.parametrize(("name", "impl"), EVERY)
def test_out_takes_the_result(name: str, impl: str) -> None:
    inputs, run = example(name, impl, 2, 6, 1, 4), OPERATORS[name].call
    expected, _ = run(*inputs, impl=impl)
    out = torch.full_like(expected, torch.nan)
    y, _ = run(*inputs, out=out, impl=impl)
    assert y is out and torch.equal(out, expected)
    half = example(name, impl, 2, 6, 1, 4, dtype=torch.bfloat16)
    expected, state = run(*half, impl=impl)
    assert expected.dtype == torch.bfloat16 and state.dtype == torch.float32
    out = torch.full_like(expected, torch.nan)
    y, _ = run(*half, out=out, impl=impl)
    assert y is out and torch.equal(out, expected)


@pytest.mark.parametrize("name", NAMES)
def test_bad_calls_are_refused(name: str) -> None:
    inputs, run = example(name, "torch", 2, 5, 1, 4), OPERATORS[name].call
    *rest, last = inputs

    def refused(message: str, *changed: Any, **options: Any) -> None:
        with pytest.raises(ValueError, match=message):
            run(*(changed or inputs), **options)

    refused(f"{name} wants sequences of one shape", *rest, last[:, :3])
    refused("none of them 0", *(x[:, :0] if x.ndim == 4 else x for x in inputs))
    refused(r"wants a state \[2, 1, 4, 4\], got \[1, 1, 4, 4\]", state=torch.zeros(1, 1, 4, 4))
    refused(r"wants lengths \[2\], got \[1\]", lengths=torch.tensor([3]))
    refused("on one device", *rest, last.to("meta"))
    refused("`out` must be contiguous", out=torch.empty(2, 4, 5, 1).permute(0, 2, 3, 1))
    refused("with gradients", *rest, last.clone().requires_grad_(), out=torch.empty(2, 5, 1, 4))
    with pytest.raises(BadInput, match=f"no implementation 'cuda' of {name}"):
        run(*inputs, impl="cuda")
    with pytest.raises(BadInput, match="it computes in float32"):
        run(*(x.double().to(device_of("triton")) for x in inputs), impl="triton")
