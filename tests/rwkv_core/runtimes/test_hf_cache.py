"""Caches that are written in place: the numbers of transformers' own, no copy while there is room, exact bytes."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from rwkv_core.decode import generate
from rwkv_core.errors import Unsupported
from rwkv_core.load import load
from rwkv_core.runtimes import hf_cache
from rwkv_core.runtimes.hf import CacheState, HFModel
from rwkv_core.spec import ModelSpec
from tests.checks import parity
from tests.rwkv_core.runtimes.test_hf import ATTENTION, SMALL, small

SLIDING = {**SMALL["llama"], "model_type": "mistral", "sliding_window": 8}


def with_copies(model: HFModel) -> HFModel:
    """The same weights with transformers' DynamicCache."""
    return HFModel(dataclasses.replace(model.spec, cache="dynamic"), model.causal)


def fed(model: HFModel, tokens: Tensor, sizes: list[int], state: CacheState | None) -> tuple[Tensor, Any]:
    """The logits of every position, `sizes` tokens at a time."""
    parts = []
    for part in tokens.split(sizes, 1):
        hidden, state = model.hidden(part, state)
        parts.append(model.logits(hidden))
    return torch.cat(parts, 1), state


def capacities(state: CacheState) -> set[int]:
    return {layer.capacity for layer in state.cache.layers}


def places(state: CacheState) -> list[int]:
    """Where keys and values lie in memory."""
    return [t.data_ptr() for layer in state.cache.layers for t in (layer.keys, layer.values)]


@torch.inference_mode()
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("sizes", [[1] * 30, [7, 1, 1, 12, 1, 1, 7]], ids=["tokens", "chunks"])
@pytest.mark.parametrize("family", ATTENTION)
def test_every_cache_gives_the_same_logits(family: str, sizes: list[int], dtype: str) -> None:
    """To the bit: attention reads the same numbers in the same order, whatever lies between two heads in memory."""
    torch.manual_seed(0)
    model = small(family, dtype)
    copies = with_copies(model)
    assert (model.cache, copies.cache) == ("preallocated", "dynamic")
    tokens = torch.randint(128, (2, 30))
    wanted, copied = fed(copies, tokens, sizes, None)
    doubled, grown = fed(model, tokens, sizes, None)
    reserved, room = fed(model, tokens, sizes, model.reserve(40))
    assert torch.equal(doubled, wanted) and torch.equal(reserved, wanted)
    if dtype == "float32":
        torch.testing.assert_close(wanted, model.logits(model.hidden(tokens, keep=False)[0]), rtol=1e-4, atol=1e-4)
    itemsize = 4 if dtype == "float32" else 2
    for state in (copied, grown, room):
        assert model.state_bytes(state) == model.spec.state_bytes(30, itemsize, batch=2)
    assert copies.held_bytes(copied) == copies.state_bytes(copied)
    assert capacities(grown) == {32 if sizes[0] == 1 else 56}
    for state in (grown, room):
        (capacity,) = capacities(state)
        assert model.held_bytes(state) == model.spec.state_bytes(capacity, itemsize, batch=2)


@torch.inference_mode()
@pytest.mark.parametrize("family", ATTENTION)
def test_ragged_rows_taken_and_carried_on_are_the_same_to_the_bit(family: str) -> None:
    model = small(family)
    tokens, more, last = torch.randint(128, (3, 12)), torch.randint(128, (4, 5)), torch.randint(128, (2, 2))
    rows = torch.tensor([1, 1, 2, 1])
    ends, texts = [], []
    for one, state in ((with_copies(model), None), (model, None), (model, model.reserve(40))):
        hidden, state = one.hidden(tokens, state, torch.tensor([12, 3, 9]))
        before = one.state_bytes(state)
        taken = one.take(state, rows)  # the three slots that only row 0 used are left behind
        assert taken.tokens == 9
        further, taken = one.hidden(more, taken, torch.tensor([5, 2, 4, 1]))
        end, taken = one.hidden(last, one.take(taken, torch.tensor([3, 0])))
        again, _ = one.hidden(last, one.take(state, torch.tensor([0, 2])))
        assert one.state_bytes(state) == before  # what was taken from stays as it was
        ends.append((hidden, further, end, again))
        texts.append(capacities(taken) if one is model else set())
    assert all(torch.equal(a, b) for same in ends[1:] for a, b in zip(ends[0], same, strict=True))
    assert texts[2] == {40 - 3 - 6}  # the room less the slots that were left behind, twice


@torch.inference_mode()
def test_nothing_is_copied_while_room_lasts() -> None:
    model = small("pythia")
    tokens = torch.randint(128, (2, 41))
    _, state = model.hidden(tokens[:, :5], model.reserve(20))
    first = places(state)
    for part in tokens[:, 5:20].split([1, 1, 6, 1, 1, 5], 1):
        _, state = model.hidden(part, state)
        assert places(state) == first and capacities(state) == {20}
    for token in range(20, 41):
        _, state = model.hidden(tokens[:, token : token + 1], state)
        assert capacities(state) == {40 if token < 40 else 80}
        first = places(state) if token in (20, 40) else first
        assert places(state) == first


@torch.inference_mode()
def test_what_is_taken_keeps_the_room_that_is_left() -> None:
    model = small("pythia")
    _, state = model.hidden(torch.randint(128, (2, 5)), model.reserve(20))
    taken = model.take(state, torch.tensor([1, 1, 0]))
    assert model.held_bytes(taken) == model.state_bytes(taken)  # no room is made before it is needed
    _, taken = model.hidden(torch.randint(128, (3, 15)), taken)
    assert capacities(taken) == {20} and taken.cache.layers[0].keys.shape[0] == 3
    assert state.cache.layers[0].keys.shape[2] == 5


def test_a_generation_of_known_length_makes_its_buffers_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    with_room = hf_cache._with_room

    def spy(used: Tensor, capacity: int) -> Tensor:
        made.append(capacity)
        return with_room(used, capacity)

    monkeypatch.setattr(hf_cache, "_with_room", spy)
    model = small("pythia")
    _, state = generate(model, torch.randint(128, (2, 5)), 30)
    assert made == [34] * 4  # two layers' keys and values
    assert model.held_bytes(state) == model.state_bytes(state) == model.spec.state_bytes(34, batch=2)  # type: ignore[arg-type]


def test_a_state_of_one_size_needs_no_room() -> None:
    model = parity.make("tiny")
    assert model.reserve(100) is None and model.cache == "state"
    _, state = model.hidden(torch.zeros(1, 3, dtype=torch.long))
    assert model.held_bytes(state) == model.state_bytes(state)
    assert small("mamba").reserve(100) is None and small("mamba").cache == "state"


@torch.inference_mode()
def test_rows_of_a_recurrent_state_are_taken() -> None:
    model = small("mamba")
    tokens, more = torch.randint(128, (3, 6)), torch.randint(128, (2, 1))
    _, state = model.hidden(tokens)
    taken, _ = model.hidden(more, model.take(state, torch.tensor([2, 0])))
    _, alone = model.hidden(tokens[[2, 0]])
    torch.testing.assert_close(taken, model.hidden(more, alone)[0])
    assert torch.equal(model.hidden(more, model.take(state, torch.tensor([2, 0])))[0], taken)


@torch.inference_mode()
def test_a_sliding_window_falls_back_in_sight_and_has_no_ragged_rows() -> None:
    model = load(ModelSpec("mistral", "mistral", SLIDING, weights="random:1"))
    assert isinstance(model, HFModel) and (model.cache, model.ragged) == ("dynamic", False)
    for _, p in model.named_parameters():
        p.mul_(8 if p.dim() >= 2 else 1)
    tokens = torch.randint(128, (2, 24))
    whole = model.logits(model.hidden(tokens, keep=False)[0])
    logits, state = fed(model, tokens[:, :20], [6, 6, *[1] * 8], model.reserve(24))
    torch.testing.assert_close(logits, whole[:, :20], rtol=1e-4, atol=1e-4)
    rows = torch.tensor([1, 1, 0])
    logits, _ = fed(model, tokens[rows, 20:], [1] * 4, model.take(state, rows))
    torch.testing.assert_close(logits, whole[rows, 20:], rtol=1e-4, atol=1e-4)
    with pytest.raises(Unsupported, match="padded row"):
        model.hidden(tokens, lengths=torch.tensor([24, 3]))


@torch.inference_mode()
def test_rows_that_transformers_reorders_are_kept() -> None:
    model = small("pythia")
    tokens, more = torch.randint(128, (2, 6)), torch.randint(128, (2, 1))
    _, state = model.hidden(tokens, model.reserve(10))
    state.cache.reorder_cache(torch.tensor([1, 0]))
    swapped, _ = model.hidden(more, state)
    _, state = model.hidden(tokens.flip(0), model.reserve(10))
    torch.testing.assert_close(swapped, model.hidden(more, state)[0])


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["preallocated", "dynamic"])
def test_forks_go_on_apart_from_the_same_tokens(kind: str) -> None:
    model = small("pythia")
    model = model if kind == "preallocated" else with_copies(model)
    text = torch.arange(24)[None]
    _, state = model.hidden(text[:, :10], model.reserve(20))
    before, held = places(state), model.held_bytes(state)
    for more in (text[:, 10:13], text[:, 15:24], text[:, 10:24]):  # the last beyond the room that there is
        hidden, after = model.hidden(more, model.fork(state))
        whole, _ = model.hidden(torch.cat([text[:, :10], more], 1), keep=False)
        torch.testing.assert_close(hidden, whole[:, 10:])
        assert after.tokens == 10 + more.shape[1]
    assert state.tokens == 10 and model.state_bytes(state) == model.spec.state_bytes(10)
    assert places(model.fork(state)) == places(state) == before and model.held_bytes(state) == held


@torch.inference_mode()
@pytest.mark.parametrize("family", ["mamba", "sliding"])
def test_forks_of_what_is_changed_in_place_are_copies(family: str) -> None:
    model = small("mamba") if family == "mamba" else load(ModelSpec("m", "m", SLIDING, weights="random:1"))
    text = torch.arange(12)[None]
    _, state = model.hidden(text[:, :10])
    first, _ = model.hidden(text[:, 10:11], model.fork(state))
    model.hidden(text[:, 11:], model.fork(state))
    torch.testing.assert_close(model.hidden(text[:, 10:11], model.fork(state))[0], first)
    torch.testing.assert_close(model.hidden(text[:, 10:11], state)[0], first)
