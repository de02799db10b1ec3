"""What is particular to RWKV-4's WKV: its oracle against the paper's equation, states as sums, and its kernel in C."""

import ctypes
import importlib.machinery
import platform
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rwkv_core.errors import BadInput
from rwkv_core.wkv import compiled
from rwkv_core.wkv.operator import Operator
from rwkv_core.wkv.wkv4 import WKV4, c, wkv4
from rwkv_core.wkv.wkv4.reference import State, initial_state
from tests.checks.wkv4_suite import cases, make, random_state
from tests.checks.wkv_cases import check
from tests.checks.wkv_suite import Case

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


needs_c = pytest.mark.skipif(c.LIBRARY.lacks(torch.device("cpu"), torch.float32) is not None, reason="no C kernel here")


@pytest.fixture(params=WKV4.implementations)
def impl(request: pytest.FixtureRequest) -> str:
    """Each implementation that this machine has."""
    if reason := WKV4.implementations[request.param].lacks(device_of(request.param), torch.float32):
        pytest.skip(reason)
    return request.param


def device_of(impl: str) -> torch.device:
    return torch.device(DEVICE if impl == "triton" else "cpu")


def inputs(batch: int, tokens: int, channels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return make(Case("normal", batch, tokens, channels))


def written_out(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Eq. 16 term by term, without any recurrence."""
    w, u, k, v = (x.double() for x in (w, u, k, v))
    rows = []
    for t in range(k.shape[1]):
        ages = torch.arange(t - 1, -1, -1, dtype=torch.float64)
        exponents = torch.cat([ages[:, None] * w + k[:, :t], (u + k[:, t])[:, None]], 1)
        rows.append((torch.softmax(exponents, 1) * v[:, : t + 1]).sum(1))
    return torch.stack(rows, 1)


@pytest.mark.parametrize("case", [case for case in cases(small=True) if not case.state and not case.ragged], ids=str)
def test_the_oracle_is_the_equation(case: Case) -> None:
    w, u, k, v = (x.double() for x in make(case))
    expected = written_out(w, u, k, v)
    y, _ = wkv4(w, u, k, v, impl="reference")
    assert (y - expected).abs().max() <= 1e-12 * expected.abs().max()


@needs_c
def test_many_threads_and_tiles_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    w, u, k, v = inputs(3, 70, 2 * 1024 + 17)
    one, (a, b, p) = wkv4(w, u, k, v, impl="c")
    alone = gradients(w, u, k, v)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    for parallel in (compiled.parallel(), 0):  # torch's OpenMP; threads of our own
        monkeypatch.setattr(compiled, "parallel", lambda parallel=parallel: parallel)
        five, state = wkv4(w, u, k, v, impl="c")
        assert torch.equal(one, five)
        assert all(torch.equal(x, y) for x, y in zip((a, b, p), state, strict=True))
        assert all(torch.equal(x, y) for x, y in zip(alone, gradients(w, u, k, v), strict=True))


def gradients(*inputs: Tensor) -> tuple[Tensor, ...]:
    leaves = [x.detach().requires_grad_() for x in inputs]
    y, _ = wkv4(*leaves, impl="c")
    return torch.autograd.grad(y.square().sum(), leaves)


@pytest.mark.parametrize("cut", [1, 13, 64])
def test_carried_state_continues(impl: str, cut: int) -> None:
    device = device_of(impl)
    w, u, k, v = (x.to(device) for x in inputs(2, 90, 5))
    start = random_state(2, 5, str(device))
    whole, end = wkv4(w, u, k, v, start, impl="reference")
    first, state = wkv4(w, u, k[:, :cut], v[:, :cut], start, impl=impl)
    second, state = wkv4(w, u, k[:, cut:], v[:, cut:], state, impl=impl)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=2e-6, atol=2e-6)
    assert_same_sums(state, end)


def assert_same_sums(state: State, expected: State) -> None:
    """Of what the state stands for, relative to the weight of everything so far; the values it weighs may cancel."""
    weight = expected[1] * expected[2].exp()
    for part, exact in zip(state[:2], expected[:2], strict=True):
        error = (part * state[2].exp() - exact * expected[2].exp()).abs() / weight
        assert error.max() <= 2e-6


def test_ragged_rows_end_where_they_end(impl: str) -> None:
    device = device_of(impl)
    w, u, k, v = (x.to(device) for x in inputs(4, 33, 5))
    lengths = torch.tensor([33, 1, 20, 8], device=device)
    y, state = wkv4(w, u, k, v, lengths=lengths, impl=impl)
    assert y.isfinite().all()
    for row, length in enumerate(lengths.tolist()):
        alone, end = wkv4(w, u, k[row : row + 1, :length], v[row : row + 1, :length], impl="reference")
        torch.testing.assert_close(y[row : row + 1, :length], alone, rtol=2e-6, atol=2e-6)
        assert_same_sums((state[0][row : row + 1], state[1][row : row + 1], state[2][row : row + 1]), end)


@pytest.mark.parametrize("impl", ["reference", "torch"])
def test_gradcheck(impl: str) -> None:
    w, u, k, v = (x.double().requires_grad_() for x in inputs(2, 9, 3))
    state = tuple(part.double().requires_grad_() for part in random_state(2, 3))

    def run(w: Tensor, u: Tensor, k: Tensor, v: Tensor, *state: Tensor) -> Tensor:
        y, end = wkv4(w, u, k, v, (state[0], state[1], state[2]), impl=impl)
        return torch.cat([y, end[0][:, None] * end[2].exp()[:, None]], 1)

    assert torch.autograd.gradcheck(run, (w, u, k, v, *state))


@needs_c
def test_a_large_output_is_written_past_the_cache_all_the_same() -> None:
    w, u, k, v = inputs(1, 4112, 1024)  # above STREAM_ELEMENTS of wkv4.c
    whole = torch.full_like(v, torch.nan)
    wkv4(w, u, k, v, out=whole, impl="c")
    first, state = wkv4(w, u, k[:, :2000], v[:, :2000], impl="c")
    second, _ = wkv4(w, u, k[:, 2000:], v[:, 2000:], state, impl="c")
    assert (whole - torch.cat([first, second], 1)).abs().max() <= 1e-6 * whole.abs().max()


@needs_c
@pytest.mark.skipif(platform.machine() != "x86_64" or shutil.which("cc") is None, reason="for x86-64 with a compiler")
def test_c_as_it_is_compiled_for_processors_without_avx512(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, built = Path(c.__file__).with_name("wkv4.c"), tmp_path / "_c.so"
    subprocess.run(["cc", "-O2", "-march=x86-64", "-w", "-shared", "-fPIC", source, "-o", built, "-lm"], check=True)
    monkeypatch.setattr(c.LIBRARY, "loaded", ctypes.CDLL(str(built)))
    for case in cases():
        if case.tokens < 1000:
            check("wkv4", "c", case)


@needs_c
def test_what_c_keeps_for_backward_is_small() -> None:
    w, u, k, v = inputs(2, 640, 48)
    y = torch.empty_like(v)
    start = initial_state(2, 48, k.device, k.dtype)
    _, (carries, end_p) = c.forward(w, u, k, v, start, None, y, save=True)
    assert carries is not None and end_p is not None
    assert carries.nbytes == 3 * k.nbytes / 32 and end_p.nbytes == 2 * 48 * 4


def test_half_precision_keeps_a_float32_state(impl: str) -> None:
    w, u, k, v = (x.to(device_of(impl)) for x in inputs(2, 20, 4))
    y, state = wkv4(w, u, k.bfloat16(), v.bfloat16(), impl=impl)
    assert y.dtype == torch.bfloat16 and {part.dtype for part in state} == {torch.float32}


def test_out_takes_the_result(impl: str) -> None:
    w, u, k, v = (x.to(device_of(impl)) for x in inputs(2, 20, 4))
    expected, _ = wkv4(w, u, k, v, impl=impl)
    out = torch.full_like(v, torch.nan)
    y, _ = wkv4(w, u, k, v, out=out, impl=impl)
    assert y is out and torch.equal(out, expected)
    half = torch.empty_like(v, dtype=torch.bfloat16)
    y, _ = wkv4(w, u, k.bfloat16(), v.bfloat16(), out=half, impl=impl)
    assert y is half


def test_auto_takes_the_kernel_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")
    assert WKV4.choose("auto", device, torch.float64) == "torch"
    assert WKV4.choose("auto", torch.device("mps"), torch.float32) == "torch"  # which has no kernel
    if c.LIBRARY.lacks(device, torch.float32) is None:
        assert WKV4.choose("auto", device, torch.float32) == "c"
    monkeypatch.setattr(importlib.machinery, "EXTENSION_SUFFIXES", [])
    forget()
    try:
        assert WKV4.choose("auto", device, torch.float32) == "torch"
        with pytest.raises(BadInput, match="'c' of wkv4 cannot be used here: it is not compiled"):
            WKV4.choose("c", device, torch.float32)
    finally:
        forget()


def forget() -> None:
    """What was found out about this machine, which the test changes."""
    vars(c.LIBRARY).pop("loaded", None)
    Operator.choose.cache_clear()


def test_an_empty_state_at_any_exponent_has_a_gradient(impl: str) -> None:
    w, u, k, v = (x.to(device_of(impl)) for x in inputs(1, 5, 3))

    def slope(impl: str) -> Tensor:
        a, b, p = (torch.zeros(1, 3, device=k.device) for _ in range(3))
        y, _ = wkv4(w, u, k, v, (a.requires_grad_(), b, p), impl=impl)
        return torch.autograd.grad(y.sum(), a)[0]

    torch.testing.assert_close(slope(impl), slope("reference"), rtol=1e-5, atol=1e-6)


def test_a_length_beyond_the_row_is_the_row(impl: str) -> None:
    w, u, k, v = (x.to(device_of(impl)) for x in inputs(2, 5, 3))
    whole, state = wkv4(w, u, k, v, impl=impl)
    y, end = wkv4(w, u, k, v, lengths=torch.tensor([9, 5], device=k.device), impl=impl)
    assert torch.equal(y, whole) and torch.equal(end[0], state[0])
    _, end = wkv4(w, u, k, v, lengths=torch.tensor([-3, 0], device=k.device), impl=impl)
    assert not end[0].any() and not end[1].any()


def test_bad_calls_are_refused() -> None:
    w, u, k, v = inputs(2, 5, 4)
    with pytest.raises(ValueError, match="wants k, v"):
        wkv4(w[:3], u, k, v)
    with pytest.raises(ValueError, match="wants k, v"):
        wkv4(w, u, k[:, :0], v[:, :0])
    with pytest.raises(ValueError, match="none of them 0"):
        wkv4(w, u, k[:0], v[:0])
    with pytest.raises(ValueError, match=r"wants lengths \[2\], got \[1\]"):
        wkv4(w, u, k, v, lengths=torch.tensor([3]))
    with pytest.raises(ValueError, match="on one device"):
        wkv4(w, u.to("meta"), k, v)
    with pytest.raises(ValueError, match="state of three"):
        wkv4(w, u, k, v, random_state(1, 4))
    with pytest.raises(BadInput, match="no implementation 'cuda' of wkv4"):
        wkv4(w, u, k, v, impl="cuda")
    with pytest.raises(ValueError, match="`out` must be contiguous"):
        wkv4(w, u, k, v, out=torch.empty(2, 4, 5).transpose(1, 2))
    with pytest.raises(ValueError, match="with gradients"):
        wkv4(w, u, k.requires_grad_(), v, out=torch.empty(2, 5, 4))
    with pytest.raises(BadInput, match="computes in float32"):
        wkv4(w, u, k.double(), v.double(), impl="c")
