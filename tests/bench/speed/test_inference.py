"""What the inference experiment reports, on small models; and that a wrong state is never timed."""

from typing import Any

import pytest
import torch

from bench.speed import inference
from rwkv_core.errors import Unsupported
from rwkv_core.spec import LanguageModel
from tests.checks import parity
from tests.rwkv_core.runtimes.test_hf import small


def models() -> list[Any]:
    return [parity.make("small"), small("pythia"), small("bloom")]


@pytest.mark.parametrize("model", models(), ids=lambda m: m.spec.family)
def test_fair(model: LanguageModel) -> None:
    metrics, samples = inference.run(model, device="cpu", prompt_tokens=5, new_tokens=30, repeats=4, batch=2)
    assert [len(run) for run in samples["token_seconds"]] == [30] * 4
    assert all(run == sorted(run) and run[0] > 0 for run in samples["token_seconds"])
    assert metrics["context_tokens"] == 34 and metrics["carries_state"]
    assert metrics["disagreement"] < 1e-4
    contexts = [point["context_tokens"] for point in samples["memory"]]
    assert contexts == [5, 8, 16, 32, 34]
    for point in samples["memory"]:
        assert point["state_bytes"] == model.spec.state_bytes(point["context_tokens"], batch=2)
        assert point["peak_live_bytes"] >= point["state_held_bytes"] == point["state_bytes"]
    assert metrics["state_held_bytes"] == metrics["state_bytes"]
    assert metrics["parameter_bytes"] == 4 * metrics["parameters"]


def test_paper_carries_only_recurrent_state() -> None:
    fed: list[int] = []
    for model, carries in ((parity.make("tiny"), True), (small("pythia"), False)):
        hidden = model.hidden

        def spy(tokens: Any, *rest: Any, hidden: Any = hidden, **more: Any) -> Any:
            fed.append(tokens.shape[1])
            return hidden(tokens, *rest, **more)

        model.hidden = spy  # type: ignore[method-assign]
        fed.clear()
        metrics, _ = inference.run(
            model, device="cpu", protocol="paper", prompt_tokens=3, new_tokens=4, warmup_tokens=1
        )
        assert metrics["carries_state"] == carries
        assert fed[1:5] == ([3, 1, 1, 1] if carries else [3, 4, 5, 6])


def test_without_a_cache_none_is_built() -> None:
    model = small("pythia")
    with_cache, _ = inference.run(model, device="cpu", prompt_tokens=3, new_tokens=50)
    without, samples = inference.run(model, device="cpu", protocol="paper", prompt_tokens=3, new_tokens=50)
    assert "state_bytes" not in without and "state_bytes" not in samples["memory"][-1]
    hidden, state = model.hidden(torch.zeros(1, 5, dtype=torch.long), keep=False)
    torch.testing.assert_close(hidden, model.hidden(torch.zeros(1, 5, dtype=torch.long))[0])
    assert state is None and with_cache["state_bytes"] > 0


def test_more_tokens_than_positions_is_known_beforehand() -> None:
    with pytest.raises(Unsupported, match="64 learned positions"):
        inference.run(small("opt"), device="cpu", prompt_tokens=3, new_tokens=63)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_wrong_state_is_not_timed(dtype: str) -> None:
    model = parity.make("tiny").to(getattr(torch, dtype))
    right = model.hidden

    def forgetful(tokens: torch.Tensor, state: Any = None, lengths: Any = None, **_: Any) -> Any:
        return right(tokens, None, lengths)

    model.hidden = forgetful  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="disagree"):
        inference.run(model, device="cpu", prompt_tokens=3, new_tokens=8)


def test_what_is_held_for_tokens_to_come_is_reported_apart() -> None:
    """Where a cache could not know how long the text would be."""
    model = small("pythia")
    model.reserve = lambda tokens: None  # type: ignore[method-assign]
    _, samples = inference.run(model, device="cpu", prompt_tokens=5, new_tokens=30)
    held = {point["context_tokens"]: point["state_held_bytes"] for point in samples["memory"]}
    assert held == {n: model.spec.state_bytes(room) for n, room in {5: 5, 8: 10, 16: 20, 32: 40, 34: 40}.items()}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu() -> None:
    metrics, samples = inference.run(parity.make("small").to("cuda"), device="cuda", prompt_tokens=5, new_tokens=30)
    assert samples["token_seconds"][0] == sorted(samples["token_seconds"][0])
    assert metrics["cuda_peak_bytes"] >= metrics["state_bytes"] and metrics["disagreement"] < 1e-3
