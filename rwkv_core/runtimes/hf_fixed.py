"""Steps of transformers' models that do the same with the same tensors each time, so that a CUDA graph can replay one:
keys and values are buffers of one size, in which a mask shows the tokens so far.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from rwkv_core.runtimes.hf_cache import CacheState, PreallocatedLayer
from rwkv_core.spec import FixedStep


class FixedLayer(DynamicLayer):
    """Buffers of keys and values [B, H, capacity, D], those of another layer, that are written at `place` [1] and read
    as a whole.
    """

    def __init__(self, layer: PreallocatedLayer, capacity: int, place: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self.keys, self.values = layer.room(capacity)
        self.place = place

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the keys and values of one token [B, H, 1, D]; the buffers."""
        self.keys.index_copy_(2, self.place, key_states)
        self.values.index_copy_(2, self.place, value_states)
        return self.keys, self.values


def step(causal: Any, state: CacheState, steps: int) -> FixedStep:
    """So many steps behind the tokens of a preallocated cache without padding, in its buffers."""
    capacity = state.tokens + steps
    place = torch.full((1,), state.tokens, device=causal.device)  # where the next token stands
    slots = torch.arange(capacity, device=causal.device)
    cache = Cache(layers=[FixedLayer(layer, capacity, place) for layer in state.cache.layers])

    def advance(token: Tensor) -> Tensor:
        out = causal.base_model(
            input_ids=token,
            past_key_values=cache,
            use_cache=True,
            attention_mask=(slots <= place)[None, None, None],
            position_ids=place.expand(len(token), 1),
        )
        place.add_(1)
        logits: Tensor = causal.get_output_embeddings()(out.last_hidden_state[:, -1])
        return logits

    def reset() -> None:
        place.fill_(state.tokens)

    return FixedStep(advance, reset)
