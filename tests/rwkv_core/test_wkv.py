"""Every implementation of WKV against a sum written out from the paper's equation in float64."""

import pytest
import torch
from torch import Tensor

from rwkv_core.spec import BadInput
from rwkv_core.wkv import IMPLEMENTATIONS, wkv4
from rwkv_core.wkv.reference import State


def inputs(batch: int, tokens: int, channels: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    w = -torch.exp(torch.empty(channels).uniform_(-8, 3, generator=generator))
    u = torch.randn(channels, generator=generator)
    k, v = (torch.randn(batch, tokens, channels, generator=generator) for _ in range(2))
    return w, u, k, v


def written_out(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Eq. 16 term by term, without any recurrence."""
    w, u, k, v = (x.double() for x in (w, u, k, v))
    rows = []
    for t in range(k.shape[1]):
        ages = torch.arange(t - 1, -1, -1, dtype=torch.float64)
        exponents = torch.cat([ages[:, None] * w + k[:, :t], (u + k[:, t])[:, None]], 1)
        rows.append((torch.softmax(exponents, 1) * v[:, : t + 1]).sum(1))
    return torch.stack(rows, 1)


def random_state(batch: int, channels: int) -> State:
    generator = torch.Generator().manual_seed(9)
    a, b, p = (torch.randn(batch, channels, generator=generator) for _ in range(3))
    return a, b.abs() + 0.1, p


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 3), (3, 7, 5), (2, 64, 8), (1, 100, 17), (2, 257, 4)])
def test_forward_is_the_equation(impl: str, shape: tuple[int, int, int]) -> None:
    w, u, k, v = inputs(*shape)
    y, _ = wkv4(w, u, k, v, impl=impl)
    expected = written_out(w, u, k, v)
    assert (y - expected).abs().max() <= 2e-6 * expected.abs().max()


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("kind", ["k to 60", "k to 300", "jump", "slow decay", "fast decay"])
def test_extreme_inputs_stay_finite_and_right(impl: str, kind: str) -> None:
    w, u, k, v = inputs(2, 120, 6)
    match kind:
        case "k to 60":
            k = k * 20
        case "k to 300":
            k = k * 100
        case "jump":
            k = torch.where(torch.arange(120)[:, None] < 60, 60.0, -60.0).expand_as(k).contiguous()
        case "slow decay":
            w = torch.full_like(w, -3e-4)
        case "fast decay":
            w = torch.full_like(w, -20.0)
    y, state = wkv4(w, u, k, v, impl=impl)
    expected = written_out(w, u, k, v)
    assert all(part.isfinite().all() for part in state)
    assert (y - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("cut", [1, 13, 64])
def test_carried_state_continues(impl: str, cut: int) -> None:
    w, u, k, v = inputs(2, 90, 5)
    exact = [x.double() for x in (w, u, k, v)]
    start = random_state(2, 5)
    whole, end = wkv4(*exact, (start[0].double(), start[1].double(), start[2].double()), impl="reference")
    first, state = wkv4(w, u, k[:, :cut], v[:, :cut], random_state(2, 5), impl=impl)
    second, state = wkv4(w, u, k[:, cut:], v[:, cut:], state, impl=impl)
    torch.testing.assert_close(torch.cat([first, second], 1).double(), whole, rtol=2e-5, atol=2e-6)
    weight = end[1] * end[2].exp()  # of everything so far; the values it weighs may cancel
    for part, expected in zip(state[:2], end[:2], strict=True):
        error = (part * state[2].exp() - expected * end[2].exp()).abs() / weight
        assert error.max() <= 2e-5


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_ragged_rows_end_where_they_end(impl: str) -> None:
    w, u, k, v = inputs(4, 33, 5)
    lengths = torch.tensor([33, 1, 20, 8])
    y, state = wkv4(w, u, k, v, lengths=lengths, impl=impl)
    for row, length in enumerate(lengths.tolist()):
        alone, end = wkv4(w, u, k[row : row + 1, :length], v[row : row + 1, :length], impl=impl)
        torch.testing.assert_close(y[row : row + 1, :length], alone, rtol=2e-5, atol=2e-6)
        for part, expected in zip(state, end, strict=True):
            torch.testing.assert_close(part[row : row + 1], expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_gradients(impl: str) -> None:
    w, u, k, v = (x.double().requires_grad_() for x in inputs(2, 9, 3))
    state = tuple(part.double().requires_grad_() for part in random_state(2, 3))

    def run(w: Tensor, u: Tensor, k: Tensor, v: Tensor, *state: Tensor) -> Tensor:
        y, end = wkv4(w, u, k, v, (state[0], state[1], state[2]), impl=impl)
        return torch.cat([y, end[0][:, None] * end[2].exp()[:, None]], 1)

    assert torch.autograd.gradcheck(run, (w, u, k, v, *state))


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_half_precision_keeps_a_float32_state(impl: str) -> None:
    w, u, k, v = inputs(2, 20, 4)
    y, state = wkv4(w, u, k.bfloat16(), v.bfloat16(), impl=impl)
    expected, _ = wkv4(w, u, k.bfloat16().float(), v.bfloat16().float(), impl="reference")
    assert y.dtype == torch.bfloat16 and {part.dtype for part in state} == {torch.float32}
    torch.testing.assert_close(y.float(), expected, rtol=1e-2, atol=1e-2)


def test_bad_calls_are_refused() -> None:
    w, u, k, v = inputs(2, 5, 4)
    with pytest.raises(ValueError, match="wants k, v"):
        wkv4(w[:3], u, k, v)
    with pytest.raises(ValueError, match="wants k, v"):
        wkv4(w, u, k[:, :0], v[:, :0])
    with pytest.raises(ValueError, match="state of three"):
        wkv4(w, u, k, v, random_state(1, 4))
    with pytest.raises(BadInput, match="no WKV implementation 'cuda'"):
        wkv4(w, u, k, v, impl="cuda")
