"""What the layers say to each other about a model: its description, its interface, its arithmetic.

Standard library only, so that the reports can read it where there is no torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from rwkv_core import architectures, dtypes
from rwkv_core.errors import BadInput


@dataclass(frozen=True)
class ModelSpec:
    """One model of configs/models, and where its weights come from.

    repo: a hub repository, OWNER/NAME:FILE for one file of it, or "package:FOLDER" for one that lies in this package.
    weights: "pretrained" (of `repo`, at `revision`), "random:SEED" for timing, "fresh:SEED" to be trained, or a path to
    a checkpoint file or folder. attention: "default" (the fastest that there is), "transformers" (as transformers does
    it) or "eager". cache: "preallocated" (keys and values are written in place) or "dynamic" (transformers'
    DynamicCache, which copies all of them at every token). runtime: who computes it, one of runtimes.RUNTIMES; without
    one the architecture's. parameters counts every tensor once, tied ones too. trained_on: "pocket" where the
    pretrained weights come from the pocket world's text.
    """

    name: str
    family: str
    architecture: Mapping[str, Any] = field(hash=False)
    repo: str = ""
    revision: str = "main"
    context_length: int = 1024
    parameters: int = 0
    label: str = ""
    weights: str = "pretrained"
    attention: str = "default"
    cache: str = "preallocated"
    runtime: str = ""
    trained_on: str = ""

    def __post_init__(self) -> None:
        if not self.runtime:
            object.__setattr__(self, "runtime", architectures.of(self.architecture).runtime)

    @property
    def seed(self) -> int | None:
        """The seed of random or fresh weights; None where the weights are read from somewhere."""
        kind, _, seed = self.weights.partition(":")
        if kind not in ("random", "fresh"):
            return None
        if re.fullmatch("[0-9]+", seed) is None:
            raise BadInput(f"weights {self.weights!r} of {self.name}: write {kind}:SEED, as in {kind}:0")
        return int(seed)

    @property
    def hub(self) -> tuple[str, str]:
        """The hub's repository, and the one file of it that holds the weights; empty for all that it has."""
        repo, _, file = self.repo.partition(":")
        return repo, file

    @property
    def fresh(self) -> bool:
        """Whether the weights are as training begins: RWKV's by the paper, the others' as transformers has them."""
        return self.weights.startswith("fresh:")

    @property
    def layers(self) -> int:
        return int(self.architecture[architectures.of(self.architecture).layers])

    @property
    def width(self) -> int:
        return int(self.architecture["hidden_size"])

    @property
    def vocab_size(self) -> int:
        return int(self.architecture["vocab_size"])

    @property
    def recurrent(self) -> bool:
        """Whether the state's size does not depend on the context."""
        return architectures.of(self.architecture).recurrent

    @property
    def lookup_parameters(self) -> int:
        """Parameters of which a token reads one row only: the embedding, unless the head is the same matrix."""
        tied = self.architecture.get("tie_word_embeddings", False)
        return 0 if tied else self.vocab_size * self.width

    def lookup_bytes(self, dtype: str, device: str) -> int:
        """Bytes of the same, with a type's scales."""
        return dtypes.table_bytes(self.vocab_size, self.width, dtype, device) if self.lookup_parameters else 0

    @property
    def max_tokens(self) -> int | None:
        """The longest sequence the architecture can represent; None where it has no such bound."""
        learned = architectures.of(self.architecture).learned_positions
        return int(self.architecture["max_position_embeddings"]) if learned else None

    def state_bytes(self, tokens: int, itemsize: int = 4, batch: int = 1) -> int:
        """Bytes that must be kept to continue after `tokens` tokens, by formula."""
        layer = architectures.of(self.architecture).layer_state_bytes(self.architecture, tokens, itemsize)
        return batch * self.layers * layer


class Tree(NamedTuple):
    """Tokens of a text, the stem, and of each of its continuations, the branches; none is without any."""

    stem: int
    branches: tuple[int, ...] = ()


class FixedStep(NamedTuple):
    """One token after another with tensors that stay where they are, so that a CUDA graph can replay a step.

    advance: a token of each row [B, 1] -> logits [B, V]; it changes what is carried. reset: what is carried is again
    the state that the step was made of.
    """

    advance: Callable[[Any], Any]
    reset: Callable[[], None]


class LanguageModel(Protocol):
    """What a harness may ask of a model, RWKV and Transformers alike.

    Tensors are torch's; they are typed Any here because this module imports only the standard
    library. B is the batch, T the tokens, C the width, V the vocabulary.
    """

    spec: ModelSpec
    revision: str | None  # the hub commit that the weights were read from, where they were
    layout: str  # what stood around the weights in their file, as by wrapping.described; empty for bare ones
    ragged: bool  # whether a batch may keep state for rows of different lengths, and go on by many tokens

    @property
    def attention(self) -> str:
        """How the mixing is computed: sdpa, eager, wkv4:c, ..."""
        ...

    @property
    def cache(self) -> str:
        """How keys and values are kept, preallocated or dynamic; "state" where what is carried has one size."""
        ...

    @property
    def codec(self) -> Any:
        """The tokenizer that lies with the weights, a text.Codec. Raises BadInput where there is none."""
        ...

    @property
    def parameter_count(self) -> int:
        """Numbers of all weights, tied ones once, whatever type they have."""
        ...

    @property
    def parameter_bytes(self) -> int:
        """Bytes of all weights as they lie in memory."""
        ...

    @property
    def itemsize(self) -> int:
        """Bytes of a number of the type that the model computes in."""
        ...

    def fingerprint(self) -> str:
        """Of the weights: the same ones, the same fingerprint."""
        ...

    def hidden(
        self, tokens: Any, state: Any = None, lengths: Any = None, keep: bool = True, last: bool = False
    ) -> tuple[Any, Any]:
        """tokens [B, T] -> the last hidden layer, normalised, [B, T, C], and the state to go on from.

        With lengths [B], a row's tokens beyond its length are padding and its state is that of its
        true end. A state is used once: a Transformer extends its cache in place. keep=False: no state
        is wanted, and a Transformer builds no cache. last: only the last position will be read, and a runtime may give
        it alone, [B, 1, C]. A runtime that computes logits at once gives them as hidden, and `logits` passes them on.
        """
        ...

    @property
    def read(self) -> Callable[[Any, Sequence[Tree]], Any] | None:
        """Reads texts and what follows them in one pass without padding: (tokens [N], trees) -> hidden [N, C]. Of each
        tree the stem's tokens, then those of its branches, each of which goes on from the stem's end. No state is kept,
        no gradient recorded. None where the model, or its device, has no such pass.
        """
        ...

    def take(self, state: Any, rows: Any) -> Any:
        """A new state of the rows [N] of `state`, in that order, repeats among them; `state` stays usable."""
        ...

    def reserve(self, tokens: int) -> Any:
        """The state before the first token, with room for `tokens` of them, so that a text of known length never makes
        it grow; a longer one does. None, which is an empty state too, where a state always has one size.
        """
        ...

    def fork(self, state: Any) -> Any:
        """A state to go on from while `state` stays as it is: a copy where it has one size; of a cache one that shares
        its buffers, so that what one fork writes behind the tokens so far, the next overwrites. One is used at a time.
        """
        ...

    def fixed(self, state: Any, steps: int) -> FixedStep | None:
        """So many steps from `state` on, which stays as it is, in the form of FixedStep; of a cache with room for them
        in its own buffers. None where a model has no such step.
        """
        ...

    def logits(self, hidden: Any, words: slice | None = None) -> Any:
        """hidden [..., C] -> logits [..., V], or those of some words of the vocabulary alone; separate, so that it is
        computed only where it is read.
        """
        ...

    def state_bytes(self, state: Any) -> int:
        """Exact bytes of what `state` keeps of its tokens."""
        ...

    def held_bytes(self, state: Any) -> int:
        """Bytes that are allocated for `state`, with the room for tokens to come."""
        ...


class Trainable(LanguageModel, Protocol):
    """A model whose weights can be trained and written."""

    @property
    def module(self) -> Any:
        """A torch module with the weights as its parameters."""
        ...

    def save(self, folder: Path) -> None:
        """Write a checkpoint that `load` reads, matrices in bfloat16; whole or not at all."""
        ...
