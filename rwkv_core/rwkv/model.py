"""RWKV as a language model: embedding, blocks, head; one forward for a sequence, a chunk or a token.

What its versions differ in is in their modules (see version.py).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rwkv_core import text
from rwkv_core.errors import Unsupported
from rwkv_core.linear import Linear, outputs
from rwkv_core.one_size import OneSizeState
from rwkv_core.rwkv import checkpoint, version
from rwkv_core.rwkv.rows import Rows, Trees
from rwkv_core.rwkv.version import Version
from rwkv_core.spec import FixedStep, ModelSpec, Tree
from rwkv_core.torch_model import TorchModel
from rwkv_core.wkv.operator import FALLBACK

State = list[Any]  # what each layer carries: a flat NamedTuple of tensors [B, ...], its version's


class RWKV(OneSizeState, TorchModel):
    """A model of any version. Parameters are uninitialised: fill them from a checkpoint or by init.py."""

    blocks: Sequence[Any]  # a ModuleList of the version's blocks
    ragged = True

    def __init__(self, spec: ModelSpec, *, impl: str = "auto") -> None:
        super().__init__()
        self.spec = spec
        self.impl = self.version.OPERATOR.known(impl)
        self.source: Path | None = None
        self.revision: str | None = None
        self.layout = ""
        self.rescale_every = 0
        width, eps = spec.width, spec.architecture.get("layer_norm_epsilon", 1e-5)
        self.emb = nn.Embedding(spec.vocab_size, width)
        self.blocks = nn.ModuleList(  # type: ignore[assignment]
            self.version.Block(spec.architecture, layer) for layer in range(spec.layers)
        )
        self.ln_out = nn.LayerNorm(width, eps)
        self.head = Linear(width, spec.vocab_size, bias=False)

    @classmethod
    def from_checkpoint(
        cls, path: str | Path, *, device: str = "cpu", dtype: str = "float32", impl: str = "auto"
    ) -> RWKV:
        """A BlinkDL .pth, a .safetensors/.bin file, or a folder as transformers' save_pretrained writes it.

        Sizes and version are read from what is there. Raises BadInput where the file is damaged, of
        another version, or has missing or surplus weights.
        """
        loaded = checkpoint.read(Path(path), _shapes)
        model = cls.of(loaded.spec, impl=impl)
        model.layout = loaded.layout
        model.load_state_dict(checkpoint.cast(loaded.tensors, model.version, getattr(torch, dtype)), assign=True)
        model.source = Path(path)
        if dtype == "float16":
            model.rescale(model.version.RESCALE_EVERY)
        return model.to(device).eval()

    @classmethod
    def of(cls, spec: ModelSpec, *, impl: str = "auto") -> RWKV:
        """The model of `spec` on the meta device: shapes without memory."""
        with torch.device("meta"):
            return cls(spec, impl=impl)

    @property
    def version(self) -> Version:
        """The module of what is particular to its version; not an attribute, since modules cannot be copied."""
        return version.of(self.spec.architecture)

    @property
    def module(self) -> nn.Module:
        """What is trained."""
        return self

    @property
    def attention(self) -> str:
        """Which implementation of the recurrence runs where the weights lie, and which in training if another."""
        like, operator = self.ln_out.weight, self.version.OPERATOR
        exact = torch.promote_types(like.dtype, torch.float32)
        chosen = operator.choose(self.impl, like.device, exact)
        training = FALLBACK if not operator.implementations[chosen].gradients else chosen
        return f"{operator.name}:{chosen}" + (f", in training {training}" if training != chosen else "")

    @torch.no_grad()
    def rescale(self, every: int) -> None:
        """Halve the residual stream after each `every` layers, if any; the final LayerNorm undoes it."""
        self.rescale_every = every
        for i, block in enumerate(self.blocks if every else ()):
            block.att.output.weight.div_(2 ** (i // every))
            block.ffn.value.weight.div_(2 ** (i // every))

    @torch.no_grad()
    def tensors(self) -> dict[str, Tensor]:
        """The weights by BlinkDL's names as a checkpoint has them, what `rescale` has done undone. Raises Unsupported
        for quantised ones, which no checkpoint has.
        """
        if self.quantised:
            raise Unsupported(f"{self.spec.name}: no other program reads its quantised weights; write `dtype: float32`")
        tensors = dict(self.state_dict())
        for i in range(len(self.blocks) if self.rescale_every else 0):
            for name in (f"blocks.{i}.att.output.weight", f"blocks.{i}.ffn.value.weight"):
                tensors[name] = tensors[name] * 2 ** (i // self.rescale_every)
        return tensors

    def empty_state(self, batch: int) -> State:
        """The state before the first token, for `batch` rows."""
        return [self.version.empty(self.spec.architecture, batch, self.ln_out.weight)] * len(self.blocks)

    def hidden(
        self,
        tokens: Tensor,
        state: State | None = None,
        lengths: Tensor | None = None,
        keep: bool = True,
        last: bool = False,
    ) -> tuple[Tensor, State]:
        """tokens [B, T] -> hidden [B, T, C] after the last LayerNorm, and the state; see LanguageModel.

        `keep` and `last` change nothing here: the state costs nothing to make, nor do the other positions.
        """
        before = self.empty_state(len(tokens)) if state is None else state
        single = tokens.shape[1] == 1 and lengths is None  # [B, C] all the way: less to do in Python
        x, after = self._through(tokens[:, 0] if single else tokens, before, Rows(lengths))
        return x[:, None] if single else x, after

    @property
    def read(self) -> Callable[[Tensor, Sequence[Tree]], Tensor] | None:
        """Trees of texts in one pass; see LanguageModel. On a CPU alone: nothing else was measured."""
        return self._read if self.emb.weight.device.type == "cpu" else None

    def _read(self, tokens: Tensor, trees: Sequence[Tree]) -> Tensor:
        rows = Trees(trees, tokens.device)
        return self._through(tokens[None], self.empty_state(len(trees)), rows)[0][0]

    def _through(self, tokens: Tensor, before: State, rows: Rows) -> tuple[Tensor, State]:
        """tokens [B, T], or [B] of a single token each -> the last hidden layer, normalised, and the state."""
        x = self.blocks[0].ln0(self.emb(tokens))
        after = []
        shared = self.version.begin(self.blocks)
        for i, block in enumerate(self.blocks):
            x, layer, shared = block(x, before[i], shared, rows, self.impl)
            after.append(layer)
            if self.rescale_every and (i + 1) % self.rescale_every == 0:
                x = x / 2
        return self.ln_out(x), after

    def fork(self, state: State) -> State:
        """The same one, which no pass changes."""
        return state

    def fixed(self, state: State, steps: int) -> FixedStep:
        """Steps that write each new state over the one before; see LanguageModel."""
        carried = [type(layer)(*(part.clone() for part in layer)) for layer in state]

        def write(after: State) -> None:
            old, new = ([part for layer in one for part in layer] for one in (carried, after))
            torch._foreach_copy_(old, new)

        def advance(token: Tensor) -> Tensor:
            hidden, after = self.hidden(token, carried)
            write(after)
            return self.logits(hidden[:, -1])

        return FixedStep(advance, lambda: write(state))

    def take(self, state: State, rows: Tensor) -> State:
        """The state of the given rows [N], repeated where `rows` repeats; see LanguageModel."""
        return [type(layer)(*(part[rows] for part in layer)) for layer in state]

    def logits(self, hidden: Tensor, words: slice | None = None) -> Tensor:
        """hidden [..., C] -> logits [..., V], or of some words."""
        return outputs(self.head, hidden, words)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [B, T] -> logits [B, T, V]."""
        return self.logits(self.hidden(tokens)[0])

    def state_bytes(self, state: State) -> int:
        """Exact bytes of the state's tensors."""
        return sum(part.nbytes for layer in state for part in layer)

    def save(self, folder: Path) -> None:
        """A folder as `from_checkpoint` reads it, in bfloat16; see Trainable."""
        checkpoint.save(self.tensors(), self.spec, self.version, folder)

    @functools.cached_property  # a task encodes thousands of texts
    def codec(self) -> text.Codec:
        """The tokenizer that lies with the weights. Raises BadInput where there is none."""
        return text.find(self.source, self.spec)


def _shapes(spec: ModelSpec) -> dict[str, torch.Size]:
    """Of every weight of such a model."""
    return {name: tensor.shape for name, tensor in RWKV.of(spec).state_dict().items()}
