"""Heads that share keys and values, as rows of one product, beside transformers' own way."""

from typing import Any

import pytest
import torch
from torch import Tensor

from rwkv_core.runtimes import hf_attention
from rwkv_core.runtimes.hf import HFModel
from tests.rwkv_core.runtimes.test_hf import small

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


@torch.inference_mode()
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_it_is_transformers_attention(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf_attention, "MANY", 1)
    model = small(family)
    assert model.causal.config._attn_implementation == hf_attention.NAME
    asked: list[Any] = []
    fused = hf_attention.F.scaled_dot_product_attention

    def spy(query: Tensor, key: Tensor, *rest: Any, **options: Any) -> Tensor:
        asked.append((query.shape[1], key.shape[1]))
        return fused(query, key, *rest, **options)

    monkeypatch.setattr(hf_attention.F, "scaled_dot_product_attention", spy)
    grouped = read(model)
    layers = model.causal.config.num_hidden_layers
    assert asked.count((2, 2)) >= 6 * layers, "of two groups: all that had a mask, and every lone token"
    model.causal.config._attn_implementation = hf_attention.SDPA
    asked.clear()
    torch.testing.assert_close(grouped, read(model), rtol=1e-5, atol=1e-5)
    assert (2, 2) not in asked, "transformers' own copies"


def test_what_shares_nothing_is_left_alone() -> None:
    assert small("pythia").causal.config._attn_implementation == hf_attention.SDPA
    assert small("bloom").causal.config._attn_implementation == "eager"


def test_on_a_gpu_only_a_lone_token_with_a_mask_is_better_so() -> None:
    """There torch shares keys by itself where there is no mask."""
    key = torch.empty(1, 2, 3 * hf_attention.MANY, 8, device="meta")
    for tokens, masked, expected in ((1, True, True), (5, True, False), (1, False, False), (5, False, False)):
        query = torch.empty(1, 4, tokens, 8, device="meta")
        mask = torch.empty(1, 1, tokens, key.shape[2], device="meta") if masked else None
        assert hf_attention._pays(query, key, mask) is expected
