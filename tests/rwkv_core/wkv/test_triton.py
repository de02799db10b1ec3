"""What is particular to the Triton kernels: both launch plans, what they save and leave unwritten, how they compile.

Without a GPU they run in Triton's interpreter, with blocks of a few channels and tokens.
"""

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rwkv_core.wkv.wkv4.reference import State, initial_state, step

pytest.importorskip("triton")
from rwkv_core.wkv.wkv4 import triton_backward, triton_forward

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOKENS = 23  # no multiple of a block of either pass
INTERVAL = 2
PLANS = {"alone": (TOKENS, TOKENS), "chunks": (8, 4), "other chunks": (4, 12)}  # tokens of a chunk: forward, backward
NORMAL, EXTREME = 1e-6, 1e-4  # of the largest entry


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_forward, "BLOCK", 4)
    monkeypatch.setattr(triton_forward, "ROWS", 4)
    monkeypatch.setattr(triton_forward, "INTERVAL", INTERVAL)


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Whatever torch.empty gives is NaN, so that what no kernel writes is seen."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(before)


def plan(monkeypatch: pytest.MonkeyPatch, forward: int, backward: int) -> None:
    monkeypatch.setattr(triton_forward, "chunk_length", lambda *_: forward)
    monkeypatch.setattr(triton_backward, "chunk_length", lambda *_: backward)


def inputs(batch: int, tokens: int, channels: int, seed: int = 0) -> list[Tensor]:
    """w, u, k, v and dy."""
    generator = torch.Generator().manual_seed(seed)
    w = -torch.exp(torch.empty(channels).uniform_(-8, 3, generator=generator))
    u = torch.randn(channels, generator=generator)
    rest = (torch.randn(batch, tokens, channels, generator=generator) for _ in range(3))
    return [x.to(DEVICE) for x in (w, u, *rest)]


def start(batch: int, channels: int, empty: bool = False) -> State:
    if empty:
        return initial_state(batch, channels, torch.device(DEVICE), torch.float32)
    a, b, p = torch.randn(3, batch, channels, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    return a, b.abs() + 0.1, p


def states(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: State, lengths: Tensor | None
) -> tuple[Tensor, list[State]]:
    """y, zero beyond a row's length, and the state before every token and at the end, in float64."""
    outputs, states_after = [], [state]
    for t in range(k.shape[1]):
        y, after = step(w, u, k[:, t], v[:, t], state)
        if lengths is not None:
            inside = (t < lengths)[:, None]
            a, b, p = (torch.where(inside, new, old) for new, old in zip(after, state, strict=True))
            y, after = torch.where(inside, y, 0.0), (a, b, p)
        state = after
        outputs.append(y)
        states_after.append(state)
    return torch.stack(outputs, 1), states_after


def errors(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, dy: Tensor, state: State, lengths: Tensor | None = None
) -> dict[str, float]:
    """Of y, the final sums and each gradient, against the oracle and of the largest entry."""
    y = torch.full_like(v, math.nan)
    end, saved = triton_forward.forward(w, u, k, v, state, lengths, y, save=True)
    leaves = [x.double().requires_grad_() for x in (w, u, k, v, *state[:2])]
    exact, found = states(*leaves[:4], (leaves[4], leaves[5], state[2].double()), lengths)
    a, b, p = found[-1]
    exponent = end[2].double()
    results, expected = {"y": y}, {"y": exact}
    for name, part, true in (("a", end[0], a), ("b", end[1], b)):  # of the weight of everything so far
        results[name] = torch.nan_to_num(part * torch.exp(exponent - p) / b, nan=math.nan if b.all() else 0.0)
        expected[name] = torch.nan_to_num(true / b)

    generator = torch.Generator().manual_seed(2)
    slopes = torch.randn(2, *a.shape, generator=generator).to(DEVICE)
    scale = torch.exp(p - p.detach())
    loss = (exact * dy.double()).sum() + (slopes[0] * a * scale + slopes[1] * b * scale).sum()
    true_gradients = torch.autograd.grad(loss, leaves)
    da, db = (slopes * torch.exp(exponent - p.detach())).float().unbind()
    gradients = triton_backward.backward(w, u, k, v, lengths, saved, dy, (da, db))
    for name, gradient, true in zip(["dw", "du", "dk", "dv", "da", "db"], gradients, true_gradients, strict=True):
        results[name], expected[name] = gradient, true
    for name, result in results.items():
        assert result.isfinite().all(), name
    with torch.no_grad():
        largest = {name: true.abs().max().clamp(min=1e-30) for name, true in expected.items()}
        return {name: float((results[name] - expected[name]).abs().max() / largest[name]) for name in results}


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("name", "channels", "lengths"),
    [
        ("alone", 5, None),
        ("alone", 5, [0, 16]),
        ("chunks", 8, None),
        ("chunks", 5, [TOKENS, 9]),
        ("other chunks", 5, [TOKENS, 9]),
        ("other chunks", 5, [0, 16]),
    ],
)
def test_plans(monkeypatch: pytest.MonkeyPatch, name: str, channels: int, lengths: list[int] | None) -> None:
    plan(monkeypatch, *PLANS[name])
    until = None if lengths is None else torch.tensor(lengths, device=DEVICE)
    found = errors(*inputs(2, TOKENS, channels), start(2, channels, empty=lengths == [0, 16]), until)
    assert max(found.values()) <= NORMAL, found


@pytest.mark.gpu
def test_many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    plan(monkeypatch, 4, 4)
    found = errors(*inputs(1, 84, 2), start(1, 2))
    assert max(found.values()) <= NORMAL, found


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["alone", "other chunks"] if DEVICE == "cuda" else ["other chunks"])
@pytest.mark.parametrize("kind", ["k to 60", "k to 300", "jump", "slow", "fast", "instant", "bonus"])
def test_extremes(monkeypatch: pytest.MonkeyPatch, name: str, kind: str) -> None:
    plan(monkeypatch, *PLANS[name])
    w, u, k, v, dy = inputs(1, TOKENS, 4)
    match kind:
        case "k to 60":
            k = (k * 20).clamp(-60, 60)
        case "k to 300":
            k = (k * 100).clamp(-300, 300)
        case "jump":
            k = torch.where(torch.arange(TOKENS, device=DEVICE)[:, None] < 11, k + 60.0, k - 60.0)
        case "slow":
            w = torch.full_like(w, -3e-4)
        case "fast":
            w = torch.full_like(w, -20.0)
        case "instant":
            w = torch.full_like(w, -150.0)
        case "bonus":
            u = u * 50
    found = errors(w, u, k, v, dy, start(1, 4, empty=name == "alone"))
    assert max(found.values()) <= EXTREME, found
    assert kind != "bonus" or found["du"] <= NORMAL, found  # where y and v are almost the same


# The interpreter cuts off what bfloat16 has no place for; a GPU rounds.
@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.bfloat16, 2**-7), (torch.float16, 2**-11)])
def test_half_precision(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, rounding: float) -> None:
    plan(monkeypatch, *PLANS["chunks"])
    w, u, k, v, dy = inputs(1, TOKENS, 4)
    found = errors(w, u, k.to(dtype), v.to(dtype), dy.to(dtype), start(1, 4))
    rounded = {"y", "dk", "dv"}
    assert all(error <= NORMAL + rounding * (name in rounded) for name, error in found.items()), found


@pytest.mark.gpu
@pytest.mark.parametrize("name", PLANS)
def test_saved_states(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    plan(monkeypatch, *PLANS[name])
    w, u, k, v, _ = inputs(2, TOKENS, 5)
    state = start(2, 5)
    lengths = torch.tensor([TOKENS, 10], device=DEVICE)
    y = torch.empty_like(v)
    _, saved = triton_forward.forward(w, u, k, v, state, lengths, y, save=True)
    assert saved.carries is not None and saved.interval == INTERVAL
    assert saved.carries.shape == (3, 2, math.ceil(TOKENS / INTERVAL), 5) and saved.carries.dtype == torch.float32

    a0, b0, p0 = (x.double() for x in state)
    _, found = states(*(x.double() for x in (w, u, k, v)), (a0, b0, p0), lengths)
    for interval, (a, b, p) in enumerate(saved.carries.double().unbind(2)):
        true_a, true_b, true_p = found[interval * INTERVAL]
        scale = torch.exp(p - true_p) / true_b
        assert (a * scale - true_a / true_b).abs().max() <= 2e-6 and (b * scale - 1).abs().max() <= 2e-6

    without = torch.empty_like(v)
    _, saved = triton_forward.forward(w, u, k, v, state, lengths, without, save=False)
    assert saved.carries is None and torch.equal(y, without)


@pytest.mark.gpu
def test_saved_bytes() -> None:
    """At the real interval, at most 3 float32 of every `interval` tokens of a channel."""
    assert triton_forward.Saved._fields == ("carries", "interval")
    k = torch.zeros(1, 16, 4, device=DEVICE)
    _, saved = triton_forward.forward(k[0, 0], k[0, 0], k, k, start(1, 4), None, torch.empty_like(k), save=True)
    assert saved.carries is not None and saved.carries.nbytes == 3 * k.nbytes // saved.interval


@pytest.mark.gpu
def test_slopes_beyond_the_end_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    plan(monkeypatch, *PLANS["chunks"])
    w, u, k, v, dy = inputs(2, TOKENS, 4)
    lengths = torch.tensor([13, 0], device=DEVICE)
    beyond = torch.arange(TOKENS, device=DEVICE) >= lengths[:, None]
    k, v, dy = (torch.where(beyond[..., None], math.nan, x) for x in (k, v, dy))
    y = torch.full_like(v, math.nan)
    end, saved = triton_forward.forward(w, u, k, v, start(2, 4), lengths, y, save=True)
    dstate = torch.randn_like(end[0]), torch.randn_like(end[1])
    gradients = triton_backward.backward(w, u, k, v, lengths, saved, dy, dstate)
    assert all(x.isfinite().all() for x in (*end, *gradients))
    assert not y[beyond].any() and not gradients[2][beyond].any() and not gradients[3][beyond].any()
    for part, slope, initial, final in zip(start(2, 4), dstate, gradients[4:], end, strict=False):
        torch.testing.assert_close(final[1], part[1])  # a row without a token keeps its state
        torch.testing.assert_close(initial[1], slope[1])


@pytest.mark.parametrize("fill", [triton_forward.FORWARD_FILL, triton_backward.BACKWARD_FILL])
def test_chunk_length(monkeypatch: pytest.MonkeyPatch, fill: tuple[int, int]) -> None:
    monkeypatch.setattr(triton_forward, "BLOCK", 32)
    monkeypatch.setattr(triton_forward, "ROWS", 16)
    monkeypatch.setattr(triton_forward, "processors", lambda _: 132)
    device = torch.device(DEVICE)
    assert triton_forward.chunk_length(fill[0] * 132, 4096, 20, device, fill) == 4096
    assert triton_forward.chunk_length(fill[0] * 132 - 1, 4096, 20, device, fill) < 4096
    for batch, tokens, channels in [(8, 4096, 4096), (64, 1024, 1024), (1, 100000, 32768), (1, 1, 32), (1, 256, 768)]:
        assert triton_forward.chunk_length(batch, tokens, channels, device, fill) == tokens
    for batch, tokens, channels in [(1, 8192, 768), (8, 1024, 768), (1, 257, 32), (1, 1000003, 17), (3, 4096, 100)]:
        size = triton_forward.chunk_length(batch, tokens, channels, device, fill)
        chunks = math.ceil(tokens / size)
        walks = batch * math.ceil(channels / 32) * chunks
        assert size % 32 == 0 and 1 < chunks <= triton_forward.MOST_CHUNKS
        assert size == 32 or chunks > triton_forward.MOST_CHUNKS - 4 or walks >= 0.5 * fill[1] * 132


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="a graph is of a GPU's launches")
def test_graph_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    plan(monkeypatch, *PLANS["chunks"])
    w, u, k, v, dy = inputs(2, TOKENS, 5)
    state, lengths, y = start(2, 5), torch.tensor([TOKENS, 9], device=DEVICE), torch.empty_like(v)

    def both() -> tuple[Tensor, ...]:
        end, saved = triton_forward.forward(w, u, k, v, state, lengths, y, save=True)
        return *end, *triton_backward.backward(w, u, k, v, lengths, saved, dy, (state[0], state[1]))

    torch.use_deterministic_algorithms(False)
    expected = [x.clone() for x in (*both(), y)]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = both()
    y.fill_(math.nan)
    graph.replay()
    for result, true in zip((*captured, y), expected, strict=True):
        torch.testing.assert_close(result, true, rtol=0, atol=0)


def test_kernels_compile_without_spills(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    targets = ("sm_80-fp32", "sm_90-bf16")  # by hand, all four
    command = [sys.executable, "-m", "tests.checks.cross_compile", *targets]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for kernel in ("sum_chunks", "walk_chunks", "sum_chunk_gradients", "walk_back", "wkv6_walk", "wkv7_walk"):
        for target in targets:
            assert f"{kernel:20} {target.replace('-', ' ')}" in done.stdout
