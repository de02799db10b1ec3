"""Token shift with its mixing, and the squared ReLU: in C as in torch, forward and every gradient."""

from __future__ import annotations

import importlib.machinery
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from rwkv_core.rwkv import mixing
from tests.checks import parity

BOUND = 1e-6  # of the largest entry, from float64
needs_c = pytest.mark.skipif(mixing.LIBRARY.lacks(torch.device("cpu"), torch.float32) is not None, reason="no C here")
SHAPES = [(1, 1, 1), (3, 2, 5), (2, 63, 17), (1, 64, 8), (2, 65, 33), (2, 300, 130), (3, 7), (1, 768)]


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(importlib.machinery, "EXTENSION_SUFFIXES", [])
    vars(mixing.LIBRARY).pop("loaded", None)
    yield
    vars(mixing.LIBRARY).pop("loaded", None)


@pytest.fixture(autouse=True)
def however_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing, "FEWEST", 1)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh memory holds no numbers."""
    empty_like, new_empty = torch.empty_like, Tensor.new_empty
    monkeypatch.setattr(torch, "empty_like", lambda x: empty_like(x).fill_(torch.nan))
    monkeypatch.setattr(Tensor, "new_empty", lambda x, *size: new_empty(x, *size).fill_(torch.nan))


def draw(shape: tuple[int, ...], count: int, parts: bool) -> list[Tensor]:
    """x, last, `count` shares as checkpoints have them and, if wanted, what each token adds to them."""
    generator = torch.Generator().manual_seed(0)
    batch, channels = shape[0], shape[-1]
    shapes = [shape, (batch, channels), *[(1, 1, channels)] * count]
    if parts:
        shapes.append((count, batch * (shape[1] if len(shape) == 3 else 1), channels))
    return [torch.randn(size, generator=generator, dtype=torch.float64) for size in shapes]


def run(inputs: list[Tensor], count: int, current: bool, used: int, dtype: torch.dtype) -> list[Tensor]:
    """The inputs mixed, and the gradients of all that mixed them where the first `used` of them are read."""
    x, last, *rest = (tensor.to(dtype).requires_grad_() for tensor in inputs)
    outputs = list(mixing.mix(x, last, rest[:count], current=current, parts=rest[count] if rest[count:] else None))
    generator = torch.Generator().manual_seed(1)
    slopes = [torch.randn(y.shape, generator=generator, dtype=torch.float64).to(dtype) for y in outputs]
    loss = sum((y * slope).sum() for y, slope in zip(outputs[:used], slopes, strict=False))
    slopes = torch.autograd.grad(loss, [x, last, *rest], allow_unused=True, materialize_grads=True)
    return [*(y.detach() for y in outputs), *slopes]


def close(ours: list[Tensor], exact: list[Tensor]) -> bool:
    pairs = zip(ours, exact, strict=True)
    return all((a - b).abs().max() <= BOUND * max(1.0, float(b.abs().max())) for a, b in pairs)


@needs_c
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("count,current,parts", [(1, 0, 0), (6, 0, 0), (3, 1, 0), (5, 0, 1), (2, 1, 1)])
def test_c_mixes_as_torch_does(poisoned: None, shape: tuple[int, ...], count: int, current: bool, parts: bool) -> None:
    inputs = draw(shape, count, parts)
    for used in {count, 1}:
        exact = run(inputs, count, current, used, torch.float64)
        assert close(run(inputs, count, current, used, torch.float32), exact)
    x, last, *rest = (tensor.float() for tensor in inputs)
    before = x.clone(), last.clone()
    with torch.no_grad():
        plain = mixing.mix(x, last, rest[:count], current=current, parts=rest[count] if parts else None)
    assert close(list(plain), exact[:count])
    assert torch.equal(x, before[0]) and torch.equal(last, before[1])


@needs_c
def test_c_reads_what_is_strided_and_its_threads_change_nothing() -> None:
    inputs = draw((3, 300, 130), 5, True)
    exact = run(inputs, 5, False, 5, torch.float32)
    strided = [torch.stack([tensor, tensor], -1)[..., 0] for tensor in inputs]
    assert not strided[0].is_contiguous()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert all(torch.equal(a, b) for a, b in zip(run(strided, 5, False, 5, torch.float32), exact, strict=True))
    finally:
        torch.set_num_threads(threads)


@needs_c
@pytest.mark.parametrize("shape", [*SHAPES, (2, 300, 300)], ids=str)
def test_the_squared_relu(poisoned: None, shape: tuple[int, ...]) -> None:
    x, slope = draw((2, *shape), 0, False)[0].unbind()
    exact = x.clone().requires_grad_()
    (torch.relu(exact).square() * slope).sum().backward()
    ours = x.float().requires_grad_()
    y = mixing.squared_relu_(ours)
    (y * slope.float()).sum().backward()
    assert close([y.detach(), ours.grad], [torch.relu(x).square(), exact.grad])
    with torch.no_grad():
        product = x.float()
        assert torch.equal(mixing.squared_relu_(product), y)
        assert torch.equal(mixing.squared_relu_(x.float().mT.contiguous().mT), y)
        assert mixing.squared_relu_(torch.tensor([[torch.nan]])).isnan().all()  # or a broken layer would be found late


@needs_c
@pytest.mark.parametrize("version", parity.SHAPES)
def test_a_model_without_the_compiled_file_computes_the_same(request: pytest.FixtureRequest, version: str) -> None:
    model = parity.make("tiny", version=version)
    tokens = torch.randint(model.spec.vocab_size, (2, 70), generator=torch.Generator().manual_seed(0))

    def results() -> list[Tensor]:
        model.zero_grad()
        logits = model(tokens)
        logits.square().mean().backward()
        with torch.inference_mode():
            alone = model.logits(model.hidden(tokens[:, :1])[0])
            plain = model(tokens)
        return [plain, alone, logits.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]

    ours = results()
    request.getfixturevalue("uncompiled")
    assert mixing.LIBRARY.lacks(torch.device("cpu"), torch.float32)
    for a, b in zip(ours, results(), strict=True):
        assert (a - b).abs().max() <= 1e-4 * b.abs().max() + 1e-9
