"""RWKV-4 in transformers, with the weights that the native runtime reads."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from rwkv_core import machine, text
from rwkv_core.errors import Unsupported
from rwkv_core.linear import hasten, outputs
from rwkv_core.models import check_room
from rwkv_core.one_size import OneSizeState
from rwkv_core.runtimes import native
from rwkv_core.rwkv import layouts, v4
from rwkv_core.rwkv.model import RWKV
from rwkv_core.spec import ModelSpec
from rwkv_core.torch_model import TorchModel

State = list[Tensor]  # five [B, C, L]: what transformers' model carries, and changes in place


def load(spec: ModelSpec, device: str, dtype: torch.dtype) -> TransformersRWKV:
    """The model in transformers, on the device. Raises as the native runtime does."""
    check_room(spec, 4 * spec.parameters, machine.free_memory(), "for a copy in float32")
    model = native.load(spec, "cpu", torch.float32)
    return TransformersRWKV(model, converted(model, device, dtype))


def converted(model: RWKV, device: str = "", dtype: torch.dtype | None = None) -> Any:
    """transformers' RwkvForCausalLM with copies of the weights of `model`, on its device and in its type unless others
    are given.
    """
    from transformers import AutoConfig, AutoModelForCausalLM  # here, because transformers takes seconds to import

    tensors = layouts.to_hub(model.tensors(), v4.HUB_NAMES)
    dtype = dtype or model.emb.weight.dtype
    rescale = v4.RESCALE_EVERY if dtype == torch.float16 else 0
    facts = {"context_length": model.spec.context_length, "rescale_every": rescale}
    config = AutoConfig.for_model(**{**model.spec.architecture, **facts})
    with torch.device("meta"):
        peer = AutoModelForCausalLM.from_config(config)
    copies = {name: tensor.to(device or tensor.device, dtype, copy=True) for name, tensor in tensors.items()}
    peer.load_state_dict(copies, assign=True)
    return peer.eval()


class TransformersRWKV(OneSizeState, TorchModel):
    """A LanguageModel over transformers' RwkvForCausalLM. A batch keeps no state of padded rows, and does
    not go on by single tokens.
    """

    ragged = False
    read = None
    attention = "transformers"

    def __init__(self, model: RWKV, causal: Any) -> None:
        super().__init__()
        self.spec, self.source = model.spec, model.source
        self.revision, self.layout = model.revision, model.layout
        self._fingerprint = model.fingerprint()
        self.causal = causal
        hasten(self.causal)  # as the other families in transformers

    def fingerprint(self) -> str:
        """Of the weights as the native runtime reads them in float32."""
        return self._fingerprint

    def hidden(
        self,
        tokens: Tensor,
        state: State | None = None,
        lengths: Tensor | None = None,
        keep: bool = True,
        last: bool = False,
    ) -> tuple[Tensor, State | None]:
        """tokens [B, T] -> hidden [B, T, C] and the state; see LanguageModel."""
        if lengths is not None and bool((lengths != tokens.shape[1]).any()):
            raise Unsupported(f"{self.spec.name} in transformers keeps no state at a padded row's true end")
        if state is not None and tokens.shape[1] == 1 and len(tokens) > 1:  # its shift [B, C] meets tokens [B, 1, C]
            raise Unsupported(f"{self.spec.name} in transformers mixes the rows of a batch at single tokens")
        out = self.causal.rwkv(input_ids=tokens, state=state, use_cache=keep)
        return out.last_hidden_state, out.state

    def take(self, state: State, rows: Tensor) -> State:
        """The state of the given rows [N], repeated where `rows` repeats."""
        return [part[rows] for part in state]

    def logits(self, hidden: Tensor, words: slice | None = None) -> Tensor:
        """hidden [..., C] -> logits [..., V], or of some words."""
        return outputs(self.causal.head, hidden, words)

    def state_bytes(self, state: State) -> int:
        """Exact bytes of the state's tensors."""
        return sum(part.nbytes for part in state)

    @functools.cached_property
    def codec(self) -> text.Codec:
        """The tokenizer that lies with the weights. Raises BadInput where there is none."""
        return text.find(self.source, self.spec)
