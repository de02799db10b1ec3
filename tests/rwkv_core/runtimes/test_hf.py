"""The other families through one interface: caches, ragged batches, bounds."""

from typing import Any

import pytest
import torch

from rwkv_core.errors import Unsupported
from rwkv_core.load import load
from rwkv_core.runtimes import hf_attention, hf_trees
from rwkv_core.runtimes.hf import HFModel
from rwkv_core.spec import ModelSpec, Tree
from tests.rwkv_core import trees

OURS = hf_attention.NAME
SMALL = {
    "pythia": {
        "model_type": "gpt_neox",
        "vocab_size": 128,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
    },
    "opt": {
        "model_type": "opt",
        "vocab_size": 128,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "ffn_dim": 64,
        "max_position_embeddings": 64,
        "word_embed_proj_dim": 16,
        "do_layer_norm_before": False,
    },
    "bloom": {"model_type": "bloom", "vocab_size": 128, "hidden_size": 32, "n_layer": 2, "n_head": 2},
    "gpt-neo": {
        "model_type": "gpt_neo",
        "vocab_size": 128,
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 2,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 8,
        "max_position_embeddings": 64,
    },
    "llama": {
        "model_type": "llama",
        "vocab_size": 128,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
    },
    "qwen3": {  # heads that share keys and values, of another width than the model's over their number
        "model_type": "qwen3",
        "vocab_size": 128,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
    },
    "mamba": {
        "model_type": "mamba",
        "vocab_size": 128,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "state_size": 4,
        "conv_kernel": 4,
        "expand": 2,
    },
}
TREES = ["pythia", "opt", "llama", "qwen3"]  # families whose attention is transformers' interface
ATTENTION = [family for family in SMALL if family != "mamba"]


def small(family: str, dtype: str = "float32") -> HFModel:
    model = load(ModelSpec(family, family, SMALL[family], weights="random:1"), dtype=dtype)
    assert isinstance(model, HFModel)
    with torch.no_grad():  # larger than for timing, so that attention attends to something
        for _, p in model.named_parameters():
            if p.dim() >= 2:
                p.mul_(8)
    return model


@torch.inference_mode()
@pytest.mark.parametrize("family", SMALL)
def test_chunks_agree_with_the_whole_and_with_transformers_own_forward(family: str) -> None:
    model = small(family)
    tokens = torch.randint(128, (2, 30))
    whole = model.logits(model.hidden(tokens)[0])
    torch.testing.assert_close(whole, model.causal(input_ids=tokens).logits, rtol=1e-5, atol=1e-5)
    state, parts = None, []
    for part in tokens.split([1, 9, 1, 1, 18] if family != "mamba" else [18, *[1] * 12], 1):
        hidden, state = model.hidden(part, state)
        parts.append(model.logits(hidden))
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-4, atol=1e-4)
    assert model.state_bytes(state) == model.spec.state_bytes(30, batch=2)


@torch.inference_mode()
@pytest.mark.parametrize("family", ATTENTION)
def test_a_ragged_batch_agrees_with_its_rows_alone(family: str) -> None:
    model = small(family)
    tokens, more, last = torch.randint(128, (3, 20)), torch.randint(128, (3, 6)), torch.randint(128, (3, 2))
    lengths, second = torch.tensor([20, 3, 11]), torch.tensor([2, 6, 4])
    hidden, state = model.hidden(tokens, lengths=lengths)
    continued, state = model.hidden(more, state, second)
    end, _ = model.hidden(last, state)
    for row in range(3):
        alone, own = model.hidden(tokens[row : row + 1, : lengths[row]])
        torch.testing.assert_close(hidden[row, : lengths[row]], alone[0], rtol=1e-4, atol=1e-4)
        alone, own = model.hidden(more[row : row + 1, : second[row]], own)
        torch.testing.assert_close(continued[row, : second[row]], alone[0], rtol=1e-4, atol=1e-4)
        alone, _ = model.hidden(last[row : row + 1], own)
        torch.testing.assert_close(end[row], alone[0], rtol=1e-4, atol=1e-4)


def test_mamba_refuses_what_it_cannot_keep() -> None:
    with pytest.raises(Unsupported, match="padded row"):
        small("mamba").hidden(torch.zeros(2, 4, dtype=torch.long), lengths=torch.tensor([4, 2]))


@pytest.mark.parametrize("family", ["opt", "gpt-neo"])
def test_learned_positions_end(family: str) -> None:
    model = small(family)
    _, state = model.hidden(torch.zeros(1, 64, dtype=torch.long))
    with pytest.raises(Unsupported, match="64 learned positions"):
        model.hidden(torch.zeros(1, 1, dtype=torch.long), state)


@pytest.mark.parametrize("family,kind", [("pythia", OURS), ("opt", OURS), ("bloom", "eager"), ("gpt-neo", "eager")])
def test_the_kind_of_attention_that_ran_is_recorded_and_can_be_eager(
    family: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused, calls = torch.nn.functional.scaled_dot_product_attention, []

    def counted(*arguments: Any, **more: Any) -> torch.Tensor:
        calls.append(1)
        return fused(*arguments, **more)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    eager = load(ModelSpec(family, family, SMALL[family], weights="random:1", attention="eager"))
    for model, expected in ((small(family), kind), (eager, "eager")):
        calls.clear()
        model.hidden(torch.zeros(1, 4, dtype=torch.long))
        assert (model.attention, bool(calls)) == (expected, expected != "eager")


@pytest.mark.parametrize("part", [1, 6, 256], ids=lambda part: f"{part} at once")
@pytest.mark.parametrize("forest", trees.FORESTS)
@pytest.mark.parametrize("family", TREES)
def test_trees_are_read_as_their_texts_alone(
    family: str, forest: str, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf_trees, "PART", part)
    model = small(family)
    trees.check(model, trees.FORESTS[forest])
    assert "sdpa" in model.attention and model.causal.config._attn_implementation == model.attention


def test_trees_are_read_where_transformers_lets_us(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [family for family in SMALL if small(family).read] == TREES
    eager = load(ModelSpec("pythia", "pythia", SMALL["pythia"], weights="random:1", attention="eager"))
    assert eager.read is None
    assert small("pythia").to("meta").read is None


def test_trees_do_not_reach_beyond_learned_positions() -> None:
    model = small("opt")
    assert model.read
    trees.check(model, [Tree(60, (4, 4, 4)), Tree(64)])
    with pytest.raises(Unsupported, match="64 learned positions; 65 tokens"):
        model.read(torch.zeros(70, dtype=torch.long), [Tree(60, (4, 5, 1))])
    assert model.causal.config._attn_implementation == OURS
