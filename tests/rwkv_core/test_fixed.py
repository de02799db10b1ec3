"""Steps with tensors that stay where they are: the logits of steps as they are, from the same state again and again."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from rwkv_core.load import load
from rwkv_core.models import find
from rwkv_core.runtimes import hf_attention
from tests.rwkv_core.runtimes.test_hf import small

TOKENS = torch.randint(128, (2, 12), generator=torch.Generator().manual_seed(0))
READ, STEPS = 8, 4


def models() -> list[Any]:
    versions = [load(find(f"pocket-rwkv{n}", weights="random:0")) for n in (4, 5, 6, 7)]
    return [*versions, *(small(family) for family in ("pythia", "opt", "llama", "qwen3"))]


def steps(model: Any, state: Any) -> list[Tensor]:
    """The logits after each of the last tokens, as generation has them."""
    logits = []
    for token in TOKENS[:, READ:].split(1, 1):
        hidden, state = model.hidden(token, state)
        logits.append(model.logits(hidden[:, -1]))
    return logits


@torch.inference_mode()
@pytest.mark.parametrize("model", models(), ids=lambda model: model.spec.architecture["model_type"])
@pytest.mark.parametrize("room", [0, 40], ids=["copied", "in place"])
def test_steps_are_those_of_the_model(model: Any, room: int) -> None:
    _, state = model.hidden(TOKENS[:, :READ], model.reserve(room))
    wanted = steps(model, model.fork(state))
    for layer in getattr(getattr(state, "cache", None), "layers", ()):
        for buffer in layer._buffers:  # memory that was another's
            buffer[:, :, READ:] = torch.nan
    fixed = model.fixed(state, STEPS)
    token = TOKENS[:, :1].clone()
    for _ in range(2):
        fixed.reset()
        for one, logits in zip(TOKENS[:, READ:].split(1, 1), wanted, strict=True):
            torch.testing.assert_close(fixed.advance(token.copy_(one)), logits, rtol=1e-4, atol=1e-5)
    for again, logits in zip(steps(model, model.fork(state)), wanted, strict=True):
        assert torch.equal(again, logits), "the state that it was made of is as it was"


@torch.inference_mode()
@pytest.mark.parametrize("model", models(), ids=lambda model: model.spec.architecture["model_type"])
def test_nothing_moves_from_step_to_step(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a step reads and writes of what is carried lies where it did, and no size grows."""
    _, state = model.hidden(TOKENS[:, :READ], model.reserve(READ + STEPS))
    before = model.held_bytes(state)
    fixed = model.fixed(state, STEPS)
    seen: list[Any] = []
    fused = hf_attention.F.scaled_dot_product_attention

    def spy(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any) -> Tensor:
        seen.append((query.shape, key.shape, key.data_ptr(), value.data_ptr()))
        return fused(query, key, value, *rest, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    for token in TOKENS[:, READ:].split(1, 1):
        fixed.advance(token)
    layers = model.spec.layers
    assert not seen or seen[0][2] == state.cache.layers[0]._buffers[0].data_ptr(), "the cache's own memory"
    assert [seen[i : i + layers] for i in range(0, len(seen), layers)] == [seen[:layers]] * (len(seen) // layers)
    assert bool(seen) is not model.spec.recurrent and model.held_bytes(state) == before


def test_models_without_such_a_step_say_so() -> None:
    dynamic = small("pythia")
    dynamic.cache = "dynamic"
    with torch.inference_mode():
        for model in (small("bloom"), small("gpt-neo"), small("mamba"), dynamic):
            _, state = model.hidden(TOKENS[:, :READ])
            assert model.fixed(state, STEPS) is None
        padded = small("pythia")
        _, state = padded.hidden(TOKENS, lengths=torch.tensor([12, 5]))
        assert padded.fixed(state, STEPS) is None


def test_pip_rwkv_has_none() -> None:
    pytest.importorskip("rwkv")
    spec = dataclasses.replace(find("pocket-rwkv4", weights="random:0"), runtime="pip_rwkv")
    model = load(spec)
    assert model.fixed(model.hidden(TOKENS[:1, :READ])[1], STEPS) is None
