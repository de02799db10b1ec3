"""A model with its tokenizer: text in, log-likelihoods or text out, counted and cut to its window."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from evals.ask.generate import generate_until
from evals.ask.score import LIMITS, Scorer
from evals.ask.sharing import Request
from rwkv_core.errors import BadInput
from rwkv_core.spec import LanguageModel
from rwkv_core.text import Codec, of_file

Protocol = Literal["v0.4", "v0.3"]  # of lm-eval: how text becomes tokens


class Asker:
    """Asks a Scorer's model. `counts` says what was sent: requests, truncated ones, tokens.

    v0.4 leaves special tokens to the tokenizer, as lm-eval 0.4 does: what it puts around a text by default (OPT's and
    LLaMA's BOS) is there in scoring and in generation, and may be cut away with the beginning. v0.3 puts none.
    """

    def __init__(self, scorer: Scorer, codec: Codec, protocol: Protocol) -> None:
        self.scorer = scorer
        self.spec = scorer.model.spec
        self.codec = codec = codec.within(self.spec.vocab_size)
        self.protocol = protocol
        self.max_length = self.spec.context_length
        author = protocol == "v0.3" and self.spec.family.startswith("rwkv")  # as the RWKV author's script does
        self.prefix = codec.encode("\n") if author else []
        self.mark = codec.spelled(self.prefix_token_id)
        self.special_tokens = self.tok_encode("")
        self.counts: Counter[str] = Counter()
        self._context = functools.lru_cache(maxsize=4)(self.tok_encode)  # an item's choices follow each other

    @classmethod
    def of(
        cls,
        model: LanguageModel,
        device: str,
        tokenizer: str,
        protocol: Protocol,
        *,
        share: bool = True,
        batch_tokens: int = 0,
        label: str = "",
    ) -> Asker:
        """tokenizer: a tokenizer.json or World vocabulary, or own; batch_tokens: 0 for the device's default."""
        codec = model.codec if tokenizer == "own" else of_file(Path(tokenizer))
        limits = LIMITS[device]
        if batch_tokens:
            limits = limits._replace(tokens=batch_tokens)
        return cls(Scorer(model, device, share=share, limits=limits, label=label), codec, protocol)

    @property
    def eot_token_id(self) -> int:
        return self._special_token(self.codec.eos, int(self.spec.architecture.get("eos_token_id", 0)))

    @property
    def prefix_token_id(self) -> int:
        """What stands for an empty context: a BOS; lm-eval 0.3 took the end of text."""
        if self.protocol == "v0.3":
            return self.eot_token_id
        token = self.codec.eos if self.codec.bos is None else self.codec.bos
        return self._special_token(token, int(self.spec.architecture.get("bos_token_id", self.eot_token_id)))

    @property
    def ends(self) -> set[int]:
        """The tokens at which a generated text ends: the tokenizer's end of text and the model's."""
        return {self.eot_token_id, int(self.spec.architecture.get("eos_token_id", self.eot_token_id))}

    def _special_token(self, token: int | None, otherwise: int) -> int:
        """A tokenizer's special token, if it names one that the model has."""
        return token if token is not None and token < self.spec.vocab_size else otherwise

    def tok_encode(self, string: str, add_special_tokens: bool | None = None) -> list[int]:
        """Tokens with the tokenizer's special ones, unless the text begins with one (as lm-eval has it), or in v0.3."""
        if add_special_tokens is None:
            add_special_tokens = not (self.mark and string.startswith(self.mark))
        return (
            self.codec.with_special(string)
            if add_special_tokens and self.protocol != "v0.3"
            else self.codec.encode(string)
        )

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Tokens of both. v0.4 encodes the whole and cuts it, a context's last spaces going to the continuation."""
        if self.protocol == "v0.3":
            return self._context(context), self.codec.encode(continuation)
        before = self._context(context.rstrip())
        return before, self.tok_encode(context + continuation)[len(before) :]

    def pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """The tokens fed and scored, before any truncation. Raises BadInput for a continuation without tokens.

        A context without tokens, empty or of white space alone, has the prefix token in its place, unless the
        continuation begins with that.
        """
        before, after = self._encode_pair(context, continuation) if context else ([], self.codec.encode(continuation))
        if not before:
            before, after = (
                (after[:1], after[1:]) if after[:1] == [self.prefix_token_id] else ([self.prefix_token_id], after)
            )
        if not after:
            raise BadInput(f"the continuation {continuation!r} has no tokens of its own")
        return [*self.prefix, *before], after

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """(log-likelihood, greedy) of each context's continuation. Raises BadInput for text without tokens."""
        self.codec.check([text for pair in pairs for text in pair])
        return self.score_tokens([self.pair(*pair) for pair in pairs])

    def score_tokens(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        """The same of tokens."""
        return self._answer([self._request(*pair) for pair in pairs])

    def _request(self, context: list[int], continuation: list[int]) -> Request:
        """At most one token more than the window, the last of which is not fed; cut from the left as lm-eval does."""
        if len(continuation) > self.max_length:
            raise BadInput(f"a continuation of {len(continuation)} tokens exceeds the window of {self.max_length}")
        tokens = [*context, *continuation]
        self.counts["requests"] += 1
        self.counts["truncated"] += len(tokens) > self.max_length + 1
        return Request(np.array(tokens[-(self.max_length + 1) :], dtype=np.int32), len(continuation))

    def _answer(self, requests: Sequence[Request]) -> list[tuple[float, bool]]:
        answers, counts = self.scorer.score(requests)
        self.counts.update(counts)
        return [(answer.loglikelihood, answer.greedy) for answer in answers]

    def generate(self, requests: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """Greedy text after each context, by lm-eval's generation arguments. Raises BadInput as `score` does."""
        self.codec.check([context for context, _ in requests])
        return generate_until(self, requests)
