"""The largest batch: of a memory in which it is known beforehand, and where memory ends by itself."""

from typing import Any

import pytest
import torch

from bench.speed import capacity
from rwkv_core.errors import Unsupported
from rwkv_core.spec import LanguageModel
from tests.checks import parity
from tests.rwkv_core.runtimes.test_hf import small


def models() -> list[Any]:
    return [parity.make("small"), small("pythia"), small("mamba")]


@pytest.fixture(autouse=True)
def free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "free_memory", lambda device: 1 << 40)


@pytest.mark.parametrize("model", models(), ids=lambda m: m.spec.family)
def test_it_is_found_by_doubling_and_halving(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity.memory, "working", lambda device, call: call() or sizes.pop(0))
    sizes = [int(5e8), int(9e8), int(2e9), int(1.2e9)]  # of 1, 2, 4 and 3
    metrics, samples = capacity.run(model, device="cpu", context=5, gigabytes=1)
    assert metrics["largest_batch"] == 2 and not sizes
    assert [tried["batch"] for tried in samples["tried"]] == [1, 2, 4, 3]
    assert metrics["limit_bytes"] == 10**9


@pytest.mark.parametrize("model", models(), ids=lambda m: m.spec.family)
def test_it_is_what_the_bytes_say(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    each = model.spec.state_bytes(21)
    monkeypatch.setattr(capacity, "free_memory", lambda device: 100 * each)
    metrics, samples = capacity.run(model, device="cpu", context=20)
    assert metrics["predicted_batch"] == 90
    assert 0 < metrics["largest_batch"] <= 90
    took = {tried["batch"]: tried["bytes"] for tried in samples["tried"]}
    assert took[1] is not None and took[1] >= each
    assert all(used is None for batch, used in took.items() if batch > 90), "by formula it is not even tried"
    fitting = [batch for batch, used in took.items() if used is not None and used <= 90 * each]
    assert metrics["largest_batch"] == max(fitting)


def test_where_memory_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small("pythia")
    hidden = model.hidden

    def few(tokens: torch.Tensor, *rest: Any, **more: Any) -> Any:
        if len(tokens) > 6:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return hidden(tokens, *rest, **more)

    monkeypatch.setattr(model, "hidden", few)
    metrics, _ = capacity.run(model, device="cpu", context=5, gigabytes=1)
    assert metrics["largest_batch"] == 6


def test_no_more_than_most_is_tried() -> None:
    metrics, samples = capacity.run(parity.make("tiny"), device="cpu", context=5, gigabytes=1, most=6)
    assert metrics["largest_batch"] == 6 == samples["tried"][-1]["batch"] == metrics["predicted_batch"]


def test_what_cannot_be_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unsupported, match=r"64 learned positions; 64 \+ 1 do not fit"):
        capacity.run(small("opt"), device="cpu", context=64)
    model = small("pythia")
    monkeypatch.setattr(capacity, "free_memory", lambda device: model.spec.state_bytes(10))
    with pytest.raises(MemoryError, match="not one sequence of 20 tokens fits"):
        capacity.run(model, device="cpu", context=20)
    monkeypatch.setattr(capacity, "free_memory", lambda device: None)
    with pytest.raises(Unsupported, match="give `gigabytes`"):
        capacity.run(model, device="cpu", context=20)
