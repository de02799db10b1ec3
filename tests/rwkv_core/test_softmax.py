"""What is said of rows of logits: in C as in torch, at odd sizes, with ties and with what is no number."""

from __future__ import annotations

import importlib.machinery
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from rwkv_core import softmax
from rwkv_core.softmax import Summary, joined, summary

BOUND = 2e-6  # of the logarithm of a sum, from float64
needs_c = pytest.mark.skipif(softmax.LIBRARY.lacks(torch.device("cpu"), torch.float32) is not None, reason="no C here")
SHAPES = [(1, 1), (3, 2), (2, 7), (5, 8), (1, 31), (4, 33), (3, 65), (7, 200), (2, 2047), (3, 2048), (2, 2049)]
SHAPES += [(1, 4097), (9, 50277), (130, 1001)]


@pytest.fixture(params=[pytest.param("c", marks=needs_c), "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Which of the two is asked; fresh memory holds no numbers."""
    if request.param == "torch":
        monkeypatch.setattr(importlib.machinery, "EXTENSION_SUFFIXES", [])
    vars(softmax.LIBRARY).pop("loaded", None)
    new_empty = Tensor.new_empty
    monkeypatch.setattr(Tensor, "new_empty", lambda x, *size, **more: new_empty(x, *size, **more).fill_(-(1 << 30)))
    yield request.param
    vars(softmax.LIBRARY).pop("loaded", None)


def draw(shape: tuple[int, int], scale: float = 3.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(0))


def same(found: Summary, logits: Tensor) -> None:
    exact = logits.double()
    largest, place = exact.max(-1)
    assert found.log_sum.dtype == torch.float64
    torch.testing.assert_close(found.log_sum, exact.logsumexp(-1), rtol=BOUND, atol=BOUND)
    assert torch.equal(found.largest.double(), largest)
    assert torch.equal(found.place, place)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_as_in_float64(way: str, shape: tuple[int, int], threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for scale in (0.0, 3.0, 300.0):
            same(summary(draw(shape, scale)), draw(shape, scale))
        rising = torch.arange(math.prod(shape)).view(shape).float()
        same(summary(rising), rising)
        same(summary(-rising), -rising)
    finally:
        torch.set_num_threads(before)


@needs_c
def test_rows_apart_in_memory_are_read_as_they_are() -> None:
    logits = draw((6, 300))
    same(summary(logits[::2, 5:205]), logits[::2, 5:205])


@pytest.mark.parametrize("words", [5, 64, 3001])
def test_of_equal_logits_the_first_is_the_largest(way: str, words: int) -> None:
    for first, second in ((0, 1), (1, words - 1), (words // 2, words // 2 + 1)):
        logits = draw((2, words), 0.1)
        logits[:, [first, second]] = 2.0
        assert summary(logits).place.tolist() == [first, first]


def test_the_largest_of_all_floats_are_numbers(way: str) -> None:
    largest = torch.finfo(torch.float32).max
    logits = torch.tensor([[largest, 0.0, largest], [-largest, -largest, -largest], [0.0, -largest, 1e-45]])
    found = summary(logits)
    assert found.place.tolist() == [0, 0, 2]
    torch.testing.assert_close(found.log_sum, logits.double().logsumexp(-1), rtol=BOUND, atol=BOUND)


@pytest.mark.parametrize("wrong", [math.nan, -math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("words", [1, 7, 40, 2049, 6000])
def test_a_logit_that_is_not_finite_is_seen_wherever_it_stands(way: str, words: int, wrong: float) -> None:
    for place in {0, words // 2, words - 1}:
        logits = draw((3, words))
        logits[1, place] = wrong
        found = summary(logits)
        assert found.log_sum.isnan().tolist() == [False, True, False]
        same(Summary(*(x[::2] for x in found)), logits[::2])
    assert summary(torch.full((2, words), wrong)).log_sum.isnan().all()


@pytest.mark.parametrize("width", [1, 7, 64, 1000])
def test_parts_of_the_vocabulary_are_joined(way: str, width: int) -> None:
    logits = draw((4, 301))
    logits[0, [3, 200]] = 50.0
    found = summary(logits[:, :width])
    for first in range(width, 301, width):
        found = joined(found, summary(logits[:, first : first + width]), first)
    same(found, logits)
    logits[2, 150] = math.nan
    parts = [summary(logits[:, :100]), summary(logits[:, 100:])]
    assert joined(parts[0], parts[1], 100).log_sum.isnan().tolist() == [False, False, True, False]


def test_elsewhere_torch_computes_it() -> None:
    assert softmax.LIBRARY.lacks(torch.device("cuda"), torch.float32)
    assert softmax.LIBRARY.lacks(torch.device("cpu"), torch.float64)
