"""RWKV as a language model: embedding, blocks, head; one forward for a sequence, a chunk or a token."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rwkv_core import tokenizer, weights
from rwkv_core.errors import BadInput
from rwkv_core.spec import ModelSpec
from rwkv_core.v4 import ChannelMix, TimeMix
from rwkv_core.wkv import State as WkvState
from rwkv_core.wkv import choose, initial_state, known

HALF_RESCALE_EVERY = 6  # layers; float16 overflows without it (as in BlinkDL's and transformers' inference)


class LayerState(NamedTuple):
    """What one layer carries to the next token: 5 vectors of [B, C] (paper Table 2: 5DL numbers)."""

    att_x: Tensor
    wkv: WkvState
    ffn_x: Tensor


State = list[LayerState]


class Block(nn.Module):
    """x + TimeMix(LN(x)), then x + ChannelMix(LN(x)) (paper Fig. 2)."""

    def __init__(self, width: int, att_inner: int, ffn_inner: int, eps: float, first: bool) -> None:
        super().__init__()
        if first:
            self.ln0 = nn.LayerNorm(width, eps)  # of the embedding; in block 0 because the checkpoints have it there
        self.ln1 = nn.LayerNorm(width, eps)
        self.ln2 = nn.LayerNorm(width, eps)
        self.att = TimeMix(width, att_inner)
        self.ffn = ChannelMix(width, ffn_inner)

    def forward(
        self, x: Tensor, state: LayerState, w: Tensor, lengths: Tensor | None, impl: str
    ) -> tuple[Tensor, LayerState]:
        out, att_x, wkv = self.att(self.ln1(x), state.att_x, state.wkv, w, lengths, impl)
        x = x + out
        out, ffn_x = self.ffn(self.ln2(x), state.ffn_x, lengths)
        return x + out, LayerState(att_x, wkv, ffn_x)


class RWKV(nn.Module):
    """RWKV-4 (paper sec. 3). Parameters are uninitialised: fill them from a checkpoint or by init.py."""

    blocks: Sequence[Block]  # a ModuleList
    ragged = True

    def __init__(self, spec: ModelSpec, *, impl: str = "auto") -> None:
        super().__init__()
        self.spec = spec
        self.impl = known(impl)
        self.source: Path | None = None
        self.revision: str | None = None
        self.layout = ""
        self.rescale_every = 0
        shape = spec.architecture
        width, eps = spec.width, shape.get("layer_norm_epsilon", 1e-5)
        att_inner = shape.get("attention_hidden_size") or width
        ffn_inner = shape.get("intermediate_size") or 4 * width
        self.emb = nn.Embedding(spec.vocab_size, width)
        self.blocks = nn.ModuleList(  # type: ignore[assignment]
            Block(width, att_inner, ffn_inner, eps, first=i == 0) for i in range(spec.layers)
        )
        self.ln_out = nn.LayerNorm(width, eps)
        self.unembed = nn.Linear(width, spec.vocab_size, bias=False)

    @classmethod
    def from_checkpoint(
        cls, path: str | Path, *, device: str = "cpu", dtype: str = "float32", impl: str = "auto"
    ) -> RWKV:
        """A BlinkDL .pth, a .safetensors/.bin file, or a folder as transformers' save_pretrained writes it.

        Sizes and version are read from what is there. Raises BadInput where the file is damaged, of
        another version, or has missing or surplus weights.
        """
        checkpoint = weights.read(Path(path), _shapes)
        model = cls.of(checkpoint.spec, impl=impl)
        model.layout = checkpoint.layout
        model.load_state_dict(weights.cast(checkpoint.tensors, getattr(torch, dtype)), assign=True)
        model.source = Path(path)
        if dtype == "float16":
            model.rescale(HALF_RESCALE_EVERY)
        return model.to(device).eval()

    @classmethod
    def of(cls, spec: ModelSpec, *, impl: str = "auto") -> RWKV:
        """The model of `spec` on the meta device: shapes without memory."""
        with torch.device("meta"):
            return cls(spec, impl=impl)

    @property
    def attention(self) -> str:
        """Which WKV runs where the weights lie."""
        like = self.blocks[0].att.time_decay
        return "wkv4:" + choose(self.impl, like.device, like.dtype)

    @torch.no_grad()
    def rescale(self, every: int) -> None:
        """Halve the residual stream after each `every` layers; the final LayerNorm undoes it."""
        self.rescale_every = every
        for i, block in enumerate(self.blocks):
            block.att.output.weight.div_(2 ** (i // every))
            block.ffn.value.weight.div_(2 ** (i // every))

    @property
    def cache(self) -> str:
        """What is carried is a state of one size."""
        return "state"

    def empty_state(self, batch: int) -> State:
        """The state before the first token, for `batch` rows."""
        like = self.emb.weight
        inner = self.blocks[0].att.time_decay.shape[0]
        zero = torch.zeros(batch, like.shape[1], device=like.device, dtype=like.dtype)
        wkv = initial_state(batch, inner, like.device, torch.promote_types(like.dtype, torch.float32))
        return [LayerState(zero, wkv, zero) for _ in self.blocks]

    def hidden(
        self, tokens: Tensor, state: State | None = None, lengths: Tensor | None = None, keep: bool = True
    ) -> tuple[Tensor, State]:
        """tokens [B, T] -> hidden [B, T, C] after the last LayerNorm, and the state; see LanguageModel.

        `keep` changes nothing here: the state costs nothing to make.
        """
        before = self.empty_state(len(tokens)) if state is None else state
        single = tokens.shape[1] == 1 and lengths is None  # [B, C] all the way: less to do in Python
        x = self.blocks[0].ln0(self.emb(tokens[:, 0] if single else tokens))
        after = []
        decays = -torch.exp(torch.stack([block.att.time_decay for block in self.blocks]).float())  # in one go
        for i, (block, w) in enumerate(zip(self.blocks, decays.unbind(), strict=True)):
            x, layer = block(x, before[i], w, lengths, self.impl)
            after.append(layer)
            if self.rescale_every and (i + 1) % self.rescale_every == 0:
                x = x / 2
        x = self.ln_out(x)
        return x[:, None] if single else x, after

    def take(self, state: State, rows: Tensor) -> State:
        """The state of the given rows [N], repeated where asked; see LanguageModel."""
        return [LayerState(x[rows], (a[rows], b[rows], p[rows]), y[rows]) for x, (a, b, p), y in state]

    def reserve(self, tokens: int) -> None:
        """Nothing: the state has one size for any number of tokens."""

    def head(self, hidden: Tensor) -> Tensor:
        """hidden [..., C] -> logits [..., V]."""
        return self.unembed(hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [B, T] -> logits [B, T, V]."""
        return self.head(self.hidden(tokens)[0])

    def state_bytes(self, state: State) -> int:
        """Exact bytes of the state's tensors."""
        return sum(t.nbytes for layer in state for t in (layer.att_x, *layer.wkv, layer.ffn_x))

    def held_bytes(self, state: State) -> int:
        """The same: there is no room for more."""
        return self.state_bytes(state)

    def save(self, folder: Path) -> None:
        """A folder as `from_checkpoint` reads it, in bfloat16; see LanguageModel."""
        weights.save(self.state_dict(), self.spec, folder)

    @functools.cached_property  # a task encodes thousands of texts
    def codec(self) -> tokenizer.Codec:
        """The tokenizer that lies with the weights. Raises BadInput where there is none."""
        if self.source is None:
            raise BadInput(f"{self.spec.name} has random weights and so no tokenizer; use pretrained or local weights")
        return tokenizer.find(self.source, self.spec)


def _shapes(spec: ModelSpec) -> dict[str, torch.Size]:
    """Of every weight of such a model."""
    return {name: tensor.shape for name, tensor in RWKV.of(spec).state_dict().items()}
