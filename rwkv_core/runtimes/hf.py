"""The thin door to Pythia, OPT, BLOOM, GPT-Neo and Mamba through transformers."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.initialization import no_init_weights

from rwkv_core import finite, text, weights, wrapping
from rwkv_core.errors import BadInput, Unsupported, out_of_memory
from rwkv_core.files import replaced
from rwkv_core.fill import random_fill
from rwkv_core.linear import hasten, outputs
from rwkv_core.models import check_size, local, offline
from rwkv_core.runtimes import hf_attention, hf_cache, hf_fixed, hf_trees
from rwkv_core.runtimes.hf_cache import CacheState
from rwkv_core.spec import FixedStep, ModelSpec, Tree
from rwkv_core.torch_model import TorchModel

BUFFERS = {  # what the hub's older files hold beside the parameters, all of it computed from the configuration
    r"\.attention\.bias$": "GPT-Neo's and GPT-NeoX's mask that hides later tokens",
    r"\.attention\.masked_bias$": "the number that stands in that mask",
    r"\.rotary_emb\.inv_freq$": "GPT-NeoX's frequencies of positions",
    r"(^|\.)decoder\.version$": "of fairseq's format, in OPT",
}
RENAMED = {r"^backbone\.embedding\.": "backbone.embeddings."}  # Mamba's, as its first conversions have it


class HFModel(TorchModel):
    """A LanguageModel over a transformers causal model. Recurrent ones (Mamba) go on from a state by one token at a
    time; they, and those with a sliding window or other layers that do not attend to all, have no ragged batches.
    """

    def __init__(self, spec: ModelSpec, causal: Any, source: str | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.causal = causal.eval()
        hasten(self.causal)
        if spec.attention == "default":
            hf_attention.install(self.causal)
        self.source = source
        self.revision = getattr(causal.config, "_commit_hash", None)
        self.layout = ""
        self.attention = "ssm" if spec.recurrent else str(causal.config._attn_implementation)
        self.ragged = not spec.recurrent and hf_cache.only_attends_to_all(causal.config)
        self.cache = "state" if spec.recurrent else spec.cache if self.ragged else "dynamic"

    @property
    def module(self) -> nn.Module:
        """What is trained."""
        return self

    def hidden(
        self,
        tokens: Tensor,
        state: CacheState | None = None,
        lengths: Tensor | None = None,
        keep: bool = True,
        last: bool = False,
    ) -> tuple[Tensor, CacheState | None]:
        """tokens [B, T] -> hidden [B, T, C] and the extended cache; see LanguageModel.

        With lengths, each row of the cache is moved right until its true end is the last slot: the
        padding lies to the left, where a mask hides it from whatever comes next.
        """
        batch, new = tokens.shape
        past = state.tokens if state else 0
        mask = state.mask if state else None
        limit = self.spec.max_tokens
        if limit is not None:
            self._check_positions(_longest(past, new, mask, lengths))
        if not keep and state is None:
            return self.causal.base_model(input_ids=tokens, use_cache=False).last_hidden_state, None
        if not self.ragged and lengths is not None and bool((lengths != new).any()):
            raise Unsupported(f"{self.spec.name}: its state is not kept at a padded row's true end")
        if self.spec.recurrent:
            return self._recurrent(tokens, state)
        key_values = state.cache if state else hf_cache.empty(self.causal.config, self.cache, 0)
        options: dict[str, Any] = {}
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(batch, new)], 1)
            options["attention_mask"] = mask
            if self.spec.architecture["model_type"] != "bloom":  # ALiBi counts the mask itself
                end = None if limit is None else limit - 1  # of padding that reaches beyond
                options["position_ids"] = (mask.cumsum(1) - 1).clamp(0, end)[:, past:]
        out = self.causal.base_model(input_ids=tokens, past_key_values=key_values, use_cache=True, **options)
        after = CacheState(key_values, mask, past + new)
        if lengths is not None and keep and self.ragged:
            after.mask = hf_cache.align_right(key_values, mask, lengths, past, new)
        return out.last_hidden_state, after

    @property
    def read(self) -> Callable[[Tensor, Sequence[Tree]], Tensor] | None:
        """Trees of texts in one pass; see LanguageModel. On a CPU alone: nothing else was measured."""
        here = self.causal.device.type == "cpu" and self.ragged
        return self._read if here and hf_trees.served(self.causal) else None

    def _read(self, tokens: Tensor, trees: Sequence[Tree]) -> Tensor:
        self._check_positions(max(tree.stem + max(tree.branches, default=0) for tree in trees))
        return hf_trees.read(self.causal, tokens, trees)

    def _check_positions(self, reach: int) -> None:
        limit = self.spec.max_tokens
        if limit is not None and reach > limit:
            raise Unsupported(f"{self.spec.name} has {limit} learned positions; {reach} tokens do not fit")

    def take(self, state: CacheState, rows: Tensor) -> CacheState:
        """The cache of the given rows [N], repeated where `rows` repeats, less the slots that none of them uses."""
        first, mask = 0, None
        if state.mask is not None:
            mask = state.mask[rows]
            first = int(mask.any(0).int().argmax())
            mask = None if bool(mask[:, first:].all()) else mask[:, first:]
        return CacheState(hf_cache.take(state.cache, rows, first), mask, state.tokens - first)

    def _recurrent(self, tokens: Tensor, state: CacheState | None) -> tuple[Tensor, CacheState]:
        before = state.cache if state else None
        out = self.causal.base_model(input_ids=tokens, cache_params=before, use_cache=True)
        return out.last_hidden_state, CacheState(
            out.cache_params, None, (state.tokens if state else 0) + tokens.shape[1]
        )

    def logits(self, hidden: Tensor, words: slice | None = None) -> Tensor:
        """hidden [..., C] -> logits [..., V], or of some words."""
        return outputs(self.causal.get_output_embeddings(), hidden, words)

    def reserve(self, tokens: int) -> CacheState | None:
        """A cache before the first token with room for `tokens`; None for Mamba, whose state needs none."""
        if self.spec.recurrent:
            return None
        return CacheState(hf_cache.empty(self.causal.config, self.cache, tokens), None, 0)

    def fixed(self, state: CacheState, steps: int) -> FixedStep | None:
        """For models that take a mask and positions from outside; see LanguageModel."""
        if not (hf_trees.served(self.causal) and self.cache == "preallocated" and state.mask is None):
            return None
        return hf_fixed.step(self.causal, state, steps)

    def fork(self, state: CacheState) -> CacheState:
        """A cache that shares the buffers of `state`, a copy of Mamba's state; see LanguageModel."""
        return CacheState(hf_cache.fork(state.cache), state.mask, state.tokens)

    def state_bytes(self, state: CacheState) -> int:
        """Exact bytes of what the cache keeps of its tokens."""
        return hf_cache.used_bytes(state.cache)

    def held_bytes(self, state: CacheState) -> int:
        """Bytes that the cache has allocated."""
        return hf_cache.held_bytes(state.cache)

    def save(self, folder: Path) -> None:
        """A folder as `load` reads it, in bfloat16; see Trainable."""
        with replaced(folder) as part:
            copy.deepcopy(self.causal).bfloat16().save_pretrained(part)

    @functools.cached_property  # a task encodes thousands of texts
    def codec(self) -> text.Codec:
        """The tokenizer that lies with the weights, or in their repository. Raises BadInput where there is none."""
        if self.source is None or Path(self.source).is_dir():
            return text.find(None if self.source is None else Path(self.source), self.spec)
        return text.published(self.source, self.spec.revision)


def load(spec: ModelSpec, device: str, dtype: torch.dtype) -> HFModel:
    """The model in transformers. Raises BadInput for unusable weights, NaN and infinity among them."""
    if spec.seed is not None:
        return _built(spec, device, dtype)
    model = _pretrained(spec, device, dtype)
    finite.check_weights(spec.name, model)
    return model


def _built(spec: ModelSpec, device: str, dtype: torch.dtype) -> HFModel:
    """A model of the exact architecture with random weights of the spec's seed, or transformers' fresh ones."""
    arguments = dict(spec.architecture)
    config = AutoConfig.for_model(arguments.pop("model_type"), **arguments)
    if spec.fresh:
        with torch.random.fork_rng():
            torch.manual_seed(spec.seed or 0)
            causal = AutoModelForCausalLM.from_config(config, dtype=dtype, **_attention(spec))
        return HFModel(spec, causal.to(device))
    with no_init_weights(), torch.device(device):
        causal = AutoModelForCausalLM.from_config(config, dtype=dtype, **_attention(spec))
    causal.tie_weights()
    random_fill(causal, spec.seed or 0)
    return HFModel(spec, causal)


def _pretrained(spec: ModelSpec, device: str, dtype: torch.dtype) -> HFModel:
    """Weights of the hub repository at the spec's revision, or of a local folder. Raises BadInput."""
    folder = local(spec)
    source = str(folder) if folder else spec.repo
    where = {} if folder else {"revision": spec.revision}
    if folder and not folder.is_dir():
        raise BadInput(f"{source}: no such model folder; give one as transformers' save_pretrained writes it")
    from_pretrained = functools.partial(
        AutoModelForCausalLM.from_pretrained,
        source,
        dtype=dtype,
        output_loading_info=True,
        **where,
        **_attention(spec),
    )
    before = ""
    try:
        causal, report = from_pretrained(key_mapping=dict(RENAMED))
        if report["missing_keys"]:
            before = wrapping.prefix(source, unknown := _unknown(report), f"{causal.base_model_prefix}.")
            if before and (bare := {name for name, _ in causal.named_parameters()}.difference(report["missing_keys"])):
                few = f"{len(unknown)} of its names begin with {before!r}, the other {len(bare)} do not"
                raise BadInput(f"{source}: {few}; save the model's state dict alone")
        if before:
            causal, report = from_pretrained(key_mapping={f"^{re.escape(before)}": "", **RENAMED})
    except BadInput:
        raise
    except Exception as error:  # a damaged folder can make transformers raise anything
        if out_of_memory(error):
            raise
        if folder and "unsupported global" in str(error).lower():
            raise BadInput(f"{source}: {weights.REFUSED}") from error
        if folder:
            why = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
            raise BadInput(f"{source}: not a model folder that transformers can read ({why}); is it whole?") from error
        if isinstance(error, OSError | ValueError | SafetensorError):
            raise BadInput(offline(spec, error)) from error
        raise
    if wrong := sorted(_unknown(report)) + sorted(report["missing_keys"]):
        raise BadInput(f"{source}: weights are missing or unknown: {', '.join(wrong[:3])}; download the folder again")
    check_size(spec, source, sum(p.numel() for p in causal.parameters()))
    model = HFModel(spec, causal.to(device), source)
    model.layout = wrapping.described("", before)
    return model


def _unknown(report: Mapping[str, Iterable[str]]) -> list[str]:
    return [key for key in report["unexpected_keys"] if not any(re.search(buffer, key) for buffer in BUFFERS)]


def _attention(spec: ModelSpec) -> dict[str, str]:
    return {"attn_implementation": "eager"} if spec.attention == "eager" else {}


def _longest(past: int, new: int, mask: Tensor | None, lengths: Tensor | None) -> int:
    """The tokens of the longest row, padding apart."""
    if mask is None and lengths is None:
        return past + new
    before = past if mask is None else mask.sum(1)
    return int((before + (new if lengths is None else lengths)).max())  # type: ignore[union-attr]
