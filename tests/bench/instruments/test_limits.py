"""What a device can do at most: the best of a few tries, and no long wait where it is slow."""

from collections.abc import Iterator

import pytest
import torch

from bench.instruments import limits


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    for measured in (limits.bandwidth, limits.operations):
        measured.cache_clear()
    yield
    for measured in (limits.bandwidth, limits.operations):
        measured.cache_clear()


def test_the_best_of_a_few_after_a_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    takes = [0.01, 0.04, 0.02, 0.03, 0.05, 0.06]
    now = iter([t for i, take in enumerate(takes) for t in (i, i + take)])
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    assert limits._seconds(lambda: None, "cpu") == pytest.approx(0.02)


def test_one_slow_product_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 3.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    assert limits._seconds(lambda: None, "cpu") == 3


def test_the_faster_of_two_products_is_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.5, 0.25])
    monkeypatch.setattr(limits, "_seconds", lambda call, device: next(seconds))
    assert limits.operations("cpu", torch.bfloat16) == 2 * 512**3 / 0.25


def test_bytes_that_are_read_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "READ_BYTES", {"cpu": 1 << 20})
    seconds = iter([0.5, 0.25])
    monkeypatch.setattr(limits, "_seconds", lambda call, device: next(seconds))
    assert limits.bandwidth("cpu") == (1 << 20) / 0.25, "the faster of two ways to read them"
