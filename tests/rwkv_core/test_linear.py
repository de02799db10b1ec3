"""Linear layers at a few vectors: in C as in torch, for the models of every family."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rwkv_core import linear
from rwkv_core.runtimes.transformers_rwkv import TransformersRWKV, converted
from rwkv_core.spec import LanguageModel
from tests.checks import parity
from tests.rwkv_core.runtimes.test_hf import SMALL, small

BOUND = 1e-6  # of the largest entry, from float64
SHAPES = [
    (1, 1),
    (3, 2),
    (8, 1),
    (31, 7),
    (64, 64),
    (65, 129),
    (200, 3),
    (768, 2304),
    (3, 40001),
    (20001, 3),
]  # inputs, outputs

pytestmark = pytest.mark.skipif(
    linear.LIBRARY.lacks(torch.device("cpu"), torch.float32) is not None, reason="no C here"
)


@pytest.fixture(autouse=True)
def however_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "FEWEST", 1)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The sizes of every call to linear.c, which is made all the same."""
    sizes: list[tuple[int, ...]] = []
    run = linear.LIBRARY.run
    monkeypatch.setattr(linear.LIBRARY, "run", lambda size, *tensors: (sizes.append(size), run(size, *tensors)))
    return sizes


def draw(*sizes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, generator=generator) for size in sizes]


@pytest.mark.parametrize("rows", [(1,), (2,), (3,), (4,), (2, 2), ()], ids=str)
@pytest.mark.parametrize("inputs,outputs", SHAPES)
def test_c_multiplies_as_float64_does(
    monkeypatch: pytest.MonkeyPatch, calls: list[tuple[int, ...]], inputs: int, outputs: int, rows: tuple[int, ...]
) -> None:
    new_empty = Tensor.new_empty
    monkeypatch.setattr(Tensor, "new_empty", lambda x, size: new_empty(x, size).fill_(torch.nan))
    x, weight, bias = draw((*rows, inputs), (outputs, inputs), (outputs,))
    for b in (None, bias):
        exact = F.linear(x.double(), weight.double(), None if b is None else b.double())
        y = linear.linear(x, weight, b)
        assert y.shape == exact.shape
        assert (y - exact).abs().max() <= BOUND * exact.abs().max()
    assert len(calls) == 2


def test_threads_change_no_result() -> None:
    x, weight = draw((3, 300), (4001, 300))
    before = torch.get_num_threads()
    try:
        results = [(torch.set_num_threads(threads), linear.linear(x, weight))[1] for threads in (1, 3)]
    finally:
        torch.set_num_threads(before)
    assert results[0].equal(results[1])


def test_what_is_no_number_stays_so() -> None:
    x, weight = draw((2, 70), (9, 70))
    x[1, 69] = torch.nan
    weight[4, 3] = torch.inf
    y = linear.linear(x, weight)
    assert y[1].isnan().all() and not y[0].isfinite()[4]
    assert y[0].isfinite().sum() == 8


def test_torch_multiplies_the_rest(calls: list[tuple[int, ...]]) -> None:
    x, weight, bias = draw((2, 70), (9, 70), (9,))
    linear.linear(torch.cat([x, x, x]), weight)  # more vectors than a pass takes
    linear.linear(x.double(), weight.double())
    linear.linear(x.bfloat16(), weight.bfloat16())
    linear.linear(x, weight, bias[:1])  # torch spreads it
    linear.linear(x[:0], weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear.linear(x, weight).dtype == torch.bfloat16
    for wrong in (weight[:, :69], weight.repeat(1, 2)):
        with pytest.raises(RuntimeError, match="cannot be multiplied"):
            linear.linear(x, wrong)
    assert linear.linear(x, weight[0]).equal(F.linear(x, weight[0]))  # a single output, without its axis
    with pytest.raises(RuntimeError):
        linear.linear(x[0, 0], weight)
    parameter = nn.Parameter(weight)
    (slope,) = torch.autograd.grad(linear.linear(x, parameter).sum(), [parameter])
    assert torch.allclose(slope, x.sum(0).expand(9, -1))
    turned, apart = draw((70, 9), (9, 2))  # whose numbers do not lie side by side
    assert torch.allclose(linear.linear(x, turned.T), F.linear(x, turned.T))
    assert torch.allclose(linear.linear(x, weight, apart[:, 0]), F.linear(x, weight, apart[:, 0]))
    assert not calls
    assert torch.allclose(linear.linear(x.mT.contiguous().mT, weight), F.linear(x, weight))
    assert calls


def made(family: str) -> LanguageModel:
    if family in SMALL:
        return small(family)
    model = parity.make(next(iter(parity.SIZES)), version=family.removeprefix("transformers' "))
    return TransformersRWKV(model, converted(model)) if family.startswith("transformers") else model


@pytest.mark.parametrize("family", [*parity.SHAPES, "transformers' rwkv4", *SMALL])
def test_every_family_multiplies_so(monkeypatch: pytest.MonkeyPatch, calls: list[tuple[int, ...]], family: str) -> None:
    model = made(family)
    token = torch.tensor([[3]])
    torch_calls = []
    product = F.linear
    monkeypatch.setattr(F, "linear", lambda *tensors: (torch_calls.append(tensors), product(*tensors))[1])
    with torch.inference_mode():
        logits = model.logits(model.hidden(token)[0])
        assert calls and not torch_calls
        monkeypatch.setattr(linear, "FEWEST", 1 << 40)
        expected = model.logits(model.hidden(token)[0])
    assert len(torch_calls) == len(calls)
    assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()
