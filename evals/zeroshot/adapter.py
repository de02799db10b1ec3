"""The model as lm-eval sees it: text in, log-likelihoods or text out. Entered by its smallest door, TemplateLM."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lm_eval.api.model import TemplateLM

from evals.zeroshot.generate import generate_until
from evals.zeroshot.score import LIMITS, Scorer
from evals.zeroshot.sharing import Request
from evals.zeroshot.tasks import Protocol
from rwkv_core import tokenizer as tokenizers
from rwkv_core.spec import BadInput, LanguageModel
from rwkv_core.tokenizer import Tokenizer

ROLLING = "no task of configs/tasks.yaml is scored by rolling log-likelihood"


@dataclass(frozen=True)
class Codec:
    """Text to tokens and back; which tokenizer, for the record."""

    encode: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Codec:
        """Of a tokenizer.json, no special tokens added."""
        return cls(
            lambda text: tokenizer.encode(text, add_special_tokens=False).ids,
            lambda tokens: tokenizer.decode(list(tokens)),
        )

    def within(self, vocabulary: int) -> Codec:
        """The same, raising BadInput for a text with a token that a model of that vocabulary does not have."""

        def encode(text: str) -> list[int]:
            tokens = self.encode(text)
            if tokens and max(tokens) >= vocabulary:
                raise BadInput(
                    f"the tokenizer gives {self.decode([max(tokens)])!r} the token {max(tokens)}, and the model's "
                    f"vocabulary ends at {vocabulary - 1}; is it this model's tokenizer?"
                )
            return tokens

        return Codec(encode, self.decode)

    def check(self, texts: Sequence[str]) -> None:
        """Raises BadInput where a character of the texts has no tokens."""
        for character in sorted(set().union(*texts)):
            tokens = self.encode(character)
            if not tokens or (self.decode(tokens) in ("", "\ufffd") and character not in ("", "\ufffd")):
                raise BadInput(f"the tokenizer has nothing for the character {character!r} (U+{ord(character):04X})")


def adapter(
    model: LanguageModel,
    device: str,
    tokenizer: str,
    protocol: Protocol,
    *,
    share: bool = True,
    batch_tokens: int = 0,
    label: str = "",
) -> Adapter:
    """A model for lm-eval. tokenizer: a tokenizer.json, or own; batch_tokens: 0 for the device's default."""
    found = tokenizers.read(Path(tokenizer)) if tokenizer != "own" else None
    codec = Codec.of(found) if found else Codec(model.encode, model.decode)
    limits = LIMITS[device]
    if batch_tokens:
        limits = limits._replace(tokens=batch_tokens)
    return Adapter(Scorer(model, device, share=share, limits=limits, label=label), codec, protocol)


class Adapter(TemplateLM):
    """lm-eval's model over a Scorer. `counts` says what was sent: requests, truncated ones, tokens."""

    def __init__(self, scorer: Scorer, codec: Codec, protocol: Protocol) -> None:
        super().__init__()
        self.scorer = scorer
        self.spec = scorer.model.spec
        self.codec = codec = codec.within(self.spec.vocab_size)
        self.protocol = protocol
        self.max_length = self.spec.context_length
        author = protocol == "v0.3" and self.spec.family == "rwkv4"  # as the RWKV author's script does
        self.prefix = codec.encode("\n") if author else []
        self.counts: Counter[str] = Counter()
        self._context = functools.lru_cache(maxsize=4)(codec.encode)  # an item's choices follow each other

    @property
    def eot_token_id(self) -> int:
        return int(self.spec.architecture.get("eos_token_id", 0))

    @property
    def prefix_token_id(self) -> int:
        """What stands for an empty context."""
        return int(self.spec.architecture.get("bos_token_id", self.eot_token_id))

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        return self.codec.encode(string)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Tokens of both. v0.4 encodes the whole and cuts it, a context's last spaces going to the continuation."""
        if self.protocol == "v0.3":
            return self._context(context), self.codec.encode(continuation)
        stripped = context.rstrip()
        whole = self.codec.encode(context + continuation)
        before = self._context(stripped)
        return before, whole[len(before) :]

    def pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """The tokens fed and scored, before any truncation. Raises BadInput for a continuation without tokens."""
        if context:
            before, after = self._encode_pair(context, continuation)
        else:
            before, after = [self.prefix_token_id], self.codec.encode(continuation)
        if not after:
            raise BadInput(f"the continuation {continuation!r} has no tokens of its own")
        return [*self.prefix, *before], after

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        return self.score([instance.args for instance in requests])

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """(log-likelihood, greedy) of each context's continuation. Raises BadInput for text without tokens."""
        self.codec.check([text for pair in pairs for text in pair])
        return self._answer([self._request(*self.pair(*pair)) for pair in pairs])

    def _loglikelihood_tokens(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
        return self._answer([self._request(context, continuation) for _, context, continuation in requests])

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

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        raise BadInput(ROLLING)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        return self.generate([instance.args for instance in requests])

    def generate(self, requests: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """Greedy text after each context, by lm-eval's generation arguments. Raises BadInput as `score` does."""
        self.codec.check([context for context, _ in requests])
        return generate_until(self, requests)
