"""Linear layers: in C as in torch, in every type of weights, for the models of every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rwkv_core.linear import Int8Matrix, linear, matmul, products
from rwkv_core.runtimes.transformers_rwkv import TransformersRWKV, converted
from rwkv_core.spec import LanguageModel
from tests.checks import parity
from tests.rwkv_core.runtimes.test_hf import SMALL, small

BOUND = 1e-6  # of the largest entry, from float64
ROUNDING = 2**-8  # of a number in bfloat16
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

KINDS = ("float32", "bfloat16", "int8")

needs_c = pytest.mark.skipif(products.LIBRARY.lacks(torch.device("cpu"), torch.float32) is not None, reason="no C here")


@pytest.fixture(autouse=True)
def however_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "FEWEST", 1)
    monkeypatch.setattr(products, "_multiplies_bfloat16", lambda: False)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The sizes of every call to linear.c, which is made all the same."""
    sizes: list[tuple[int, ...]] = []
    run = products.LIBRARY.run
    monkeypatch.setattr(products.LIBRARY, "run", lambda size, *tensors: (sizes.append(size), run(size, *tensors)))
    return sizes


def draw(*sizes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, generator=generator) for size in sizes]


def weights(kind: str, weight: Tensor) -> tuple[Tensor | Int8Matrix, Tensor]:
    """What is multiplied with, and the same in float64."""
    if kind == "int8":
        matrix = Int8Matrix(weight)
        return matrix, matrix.numbers.double() * matrix.scales.double()[:, None]
    weight = weight.to(getattr(torch, kind))
    return weight, weight.double()


def check_products(kind: str, rows: tuple[int, ...], inputs: int, outputs: int) -> None:
    """Every product with such a matrix is what float64 gives, but for the rounding of bfloat16."""
    x, weight, bias = draw((*rows, inputs), (outputs, inputs), (outputs,))
    weight, exact_weight = weights(kind, weight)
    if kind == "bfloat16":
        x, bias = x.bfloat16(), bias.bfloat16()
    for vectors in (x, x.repeat_interleave(2, -1)[..., ::2]):  # whose numbers do not lie side by side
        for b in (None, bias):
            exact = F.linear(vectors.double(), exact_weight, None if b is None else b.double())
            y = linear(vectors, weight, b)
            assert y.shape == exact.shape and y.dtype == x.dtype
            allowed = BOUND * exact.abs().max() + (ROUNDING * exact.abs() if kind == "bfloat16" else 0)
            assert ((y.double() - exact).abs() <= allowed).all()


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is allocated for a result is full of NaN."""
    new_empty = Tensor.new_empty
    monkeypatch.setattr(Tensor, "new_empty", lambda x, *size: new_empty(x, *size).fill_(torch.nan))


@needs_c
@pytest.mark.parametrize("rows", [(1,), (2,), (3,), (4,), (2, 2), ()], ids=str)
@pytest.mark.parametrize("inputs,outputs", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_c_multiplies_as_float64_does(
    poisoned: None, calls: list[tuple[int, ...]], kind: str, inputs: int, outputs: int, rows: tuple[int, ...]
) -> None:
    check_products(kind, rows, inputs, outputs)
    assert [size[0] for size in calls] == [KINDS.index(kind)] * 4


@needs_c
@pytest.mark.parametrize("rows", [5, 6, 7, 8, 9, 32])
@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
def test_c_takes_more_vectors_of_smaller_types(
    poisoned: None, calls: list[tuple[int, ...]], kind: str, rows: int
) -> None:
    for inputs, outputs in ((1, 1), (31, 7), (257, 129), (999, 5)):
        check_products(kind, (rows,), inputs, outputs)
    assert len(calls) == 16


@pytest.mark.parametrize("rows", [1, 3, 33, 50])
@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
def test_torch_multiplies_block_by_block_as_float64_does(
    monkeypatch: pytest.MonkeyPatch, poisoned: None, kind: str, rows: int
) -> None:
    monkeypatch.setattr(products, "MOST", dict.fromkeys(products.MOST, 0))
    for block in (1, 3000, 1 << 20):
        monkeypatch.setattr(products, "BLOCK", block)
        for inputs, outputs in ((1, 1), (31, 7), (257, 129), (3, 1001)):
            check_products(kind, (rows,), inputs, outputs)


@needs_c
def test_without_c_the_results_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = draw((3, 301), (403, 301))
    matrix = Int8Matrix(weight)
    in_c = linear(x, matrix)
    monkeypatch.setattr(products.LIBRARY, "loaded", None)
    by_torch = linear(x, matrix)
    assert not in_c.equal(by_torch)
    assert (in_c - by_torch).abs().max() <= BOUND * in_c.abs().max()


@needs_c
@pytest.mark.parametrize("kind", KINDS)
def test_threads_change_no_result(kind: str) -> None:
    x, weight = draw((3, 300), (4001, 300))
    x, weight = x.to(torch.bfloat16 if kind == "bfloat16" else x.dtype), weights(kind, weight)[0]
    before = torch.get_num_threads()
    try:
        results = [(torch.set_num_threads(threads), linear(x, weight))[1] for threads in (1, 3)]
    finally:
        torch.set_num_threads(before)
    assert results[0].equal(results[1])


@needs_c
def test_what_is_no_number_stays_so() -> None:
    x, weight = draw((2, 70), (9, 70))
    x[1, 69] = torch.nan
    weight[4, 3] = torch.inf
    y = linear(x, weight)
    assert y[1].isnan().all() and not y[0].isfinite()[4]
    assert y[0].isfinite().sum() == 8
    half = linear(x.bfloat16(), weight.bfloat16())
    assert half.isnan().equal(y.isnan()) and half.isinf().equal(y.isinf())
    assert linear(x, Int8Matrix(weight.nan_to_num(posinf=9)))[1].isnan().all()


@needs_c
def test_torch_multiplies_the_rest(calls: list[tuple[int, ...]]) -> None:
    x, weight, bias = draw((2, 70), (9, 70), (9,))
    linear(torch.cat([x, x, x]), weight)  # more vectors than a pass takes
    linear(x.double(), weight.double())
    linear(x.half(), weight.half())
    linear(x.bfloat16(), weight.bfloat16(), bias.bfloat16()[:1])
    linear(x, weight, bias[:1])  # torch spreads it
    linear(x[:0], weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16
    for wrong in (weight[:, :69], weight.repeat(1, 2)):
        with pytest.raises(RuntimeError, match="cannot be multiplied"):
            linear(x, wrong)
    assert linear(x, weight[0]).equal(F.linear(x, weight[0]))  # a single output, without its axis
    with pytest.raises(RuntimeError):
        linear(x[0, 0], weight)
    parameter = nn.Parameter(weight)
    (slope,) = torch.autograd.grad(linear(x, parameter).sum(), [parameter])
    assert torch.allclose(slope, x.sum(0).expand(9, -1))
    turned, apart = draw((70, 9), (9, 2))  # whose numbers do not lie side by side
    assert torch.allclose(linear(x, turned.T), F.linear(x, turned.T))
    assert torch.allclose(linear(x, weight, apart[:, 0]), F.linear(x, weight, apart[:, 0]))
    assert not calls
    assert torch.allclose(linear(x.mT.contiguous().mT, weight), F.linear(x, weight))
    assert calls


def made(family: str) -> LanguageModel:
    if family in SMALL:
        return small(family)
    model = parity.make(next(iter(parity.SIZES)), version=family.removeprefix("transformers' "))
    return TransformersRWKV(model, converted(model)) if family.startswith("transformers") else model


@needs_c
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
        monkeypatch.setattr(products, "FEWEST", 1 << 40)
        expected = model.logits(model.hidden(token)[0])
    assert len(torch_calls) == len(calls)
    assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()


class Products(TorchDispatchMode):
    """The types in which torch multiplied matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.types: list[torch.dtype] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.mm.default, torch.ops.aten.bmm.default):
            self.types.append(args[1].dtype)
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("has", [False, True])
@pytest.mark.parametrize("shapes", [((3, 5, 70), (70, 9)), ((2, 3, 70), (2, 70, 9))])
def test_bfloat16_is_multiplied_in_float32_where_it_has_no_arithmetic(
    has: bool, shapes: tuple[tuple[int, ...], ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "_multiplies_bfloat16", lambda: has)
    x, weight = (one.bfloat16() for one in draw(*shapes))
    with Products() as multiplied:
        y = matmul(x, weight)
    assert multiplied.types == [torch.bfloat16 if has else torch.float32]
    exact = x.double() @ weight.double()
    assert y.dtype == torch.bfloat16
    assert ((y - exact).abs() <= BOUND * exact.abs().max() + ROUNDING * exact.abs()).all()
    wanted = weight.clone().requires_grad_()
    with Products() as multiplied:
        matmul(x, wanted).sum().backward()
    assert multiplied.types[0] == torch.bfloat16 and wanted.grad is not None, "torch keeps what gradients need"
