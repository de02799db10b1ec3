"""Every way of ours to attend, beside transformers' own."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.masking_utils import causal_mask_function, sliding_window_causal_mask_function

from rwkv_core import attention as on_cpu
from rwkv_core.load import load
from rwkv_core.runtimes import hf_attention
from rwkv_core.runtimes.hf import HFModel
from rwkv_core.spec import ModelSpec
from tests.rwkv_core.runtimes.test_hf import SMALL, small

LENGTHS = [7, 4]


def read(model: HFModel) -> Tensor:
    """Two texts of different lengths in chunks, and tokens after them, one by one."""
    tokens = torch.randint(128, (2, 7), generator=torch.Generator().manual_seed(0))
    _, state = model.hidden(tokens, lengths=torch.tensor(LENGTHS))
    parts = []
    for part in torch.randint(128, (2, 9), generator=torch.Generator().manual_seed(1)).split([5, 1, 1, 2], 1):
        hidden, state = model.hidden(part, state)
        parts.append(hidden)
    alone, state = model.hidden(tokens[:1])
    parts += [alone.expand(2, -1, -1), *(model.hidden(tokens[:1, :1], state)[0].expand(2, -1, -1) for _ in range(2))]
    return torch.cat(parts, 1)


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often which way was taken; tokens in C however few keys there are."""
    taken: Counter[str] = Counter()
    for name in ("next_token", "chunk"):
        monkeypatch.setattr(on_cpu, name, counted(getattr(on_cpu, name), name, taken))
    fused = hf_attention.F.scaled_dot_product_attention

    def spy(query: Tensor, key: Tensor, *rest: Any, **options: Any) -> Tensor:
        taken[f"{query.shape[1]} heads of {key.shape[1]}"] += 1
        return fused(query, key, *rest, **options)

    monkeypatch.setattr(hf_attention.F, "scaled_dot_product_attention", spy)
    monkeypatch.setattr(on_cpu, "FEWEST", 1)
    return taken


def counted(function: Any, name: str, taken: Counter[str]) -> Any:
    def spy(*arguments: Any) -> Any:
        taken[name] += 1
        return function(*arguments)

    return spy


@torch.inference_mode()
@pytest.mark.parametrize("family", ["pythia", "opt", "llama", "qwen3"])
def test_it_is_transformers_attention(family: str, ways: Counter[str]) -> None:
    model = small(family)
    assert model.causal.config._attn_implementation == hf_attention.NAME
    here, layers = read(model), model.causal.config.num_hidden_layers
    tokens = 2 * layers if on_cpu.LIBRARY.loaded is not None else 0
    assert (ways["next_token"], ways["chunk"]) == (tokens, 0), "of padded rows none, and of a text alone both tokens"
    if family in ("llama", "qwen3"):
        assert ways["2 heads of 2"] == 4 * layers, "of two groups: all that had a mask"
    model.causal.config._attn_implementation = hf_attention.SDPA
    ways.clear()
    torch.testing.assert_close(here, read(model), rtol=1e-5, atol=1e-5)
    assert not ways["next_token"]


@torch.inference_mode()
@pytest.mark.parametrize("family", ["pythia", "opt", "llama", "qwen3"])
def test_a_text_in_chunks_needs_no_mask(family: str, ways: Counter[str]) -> None:
    model = small(family)
    tokens = torch.randint(128, (2, 30), generator=torch.Generator().manual_seed(0))
    parts, state = [], None
    for part in tokens.split([7, 11, 2, 10], 1):
        hidden, state = model.hidden(part, state)
        parts.append(hidden)
    assert ways["chunk"] == 3 * model.causal.config.num_hidden_layers
    torch.testing.assert_close(torch.cat(parts, 1), model.hidden(tokens, keep=False)[0], rtol=1e-4, atol=1e-5)


def test_only_a_causal_mask_is_left_out() -> None:
    plain: dict[str, Any] = {
        "batch_size": 1,
        "q_length": 3,
        "kv_length": 8,
        "q_offset": 5,
        "kv_offset": 0,
        "mask_function": causal_mask_function,
        "attention_mask": None,
        "allow_is_causal_skip": True,
        "device": "cpu",
    }
    padded = torch.ones(1, 8, dtype=torch.bool)
    padded[0, 0] = False
    with torch.no_grad():
        assert hf_attention.mask(**plain) is None
        for other in (
            {"attention_mask": padded},
            {"mask_function": sliding_window_causal_mask_function(2)},
            {"allow_is_causal_skip": False},
            {"kv_length": 9},
            {"device": "meta"},
        ):
            assert hf_attention.mask(**plain | other) is not None, other
    assert hf_attention.mask(**plain) is not None, "where a gradient is recorded"


def test_what_torch_cannot_fuse_is_left_alone_and_what_is_asked_to_be() -> None:
    assert small("bloom").causal.config._attn_implementation == "eager"
    theirs = load(ModelSpec("pythia", "pythia", SMALL["pythia"], weights="random:1", attention="transformers"))
    assert isinstance(theirs, HFModel) and theirs.attention == hf_attention.SDPA


def test_on_a_gpu_a_lone_token_with_a_mask_is_rows_of_a_product() -> None:
    """There torch shares keys by itself where there is no mask, and of several tokens nothing was measured."""
    for tokens, expected in ((1, True), (5, False)):
        query, mask = (torch.empty(1, n, tokens, 64, device="meta") for n in (4, 1))
        assert hf_attention._pays(query, mask) is expected
