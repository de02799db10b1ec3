"""The context experiment: loss against context length (paper v2, Fig. 6), each token's loss given all before it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from evals import identity
from evals.experiment import AtLeast, Experiment
from evals.language import corpus
from rwkv_core import finite
from rwkv_core.spec import LanguageModel

VERSION = 2

FEW_SENTENCES = 64  # tokens
CHUNK = 256  # tokens fed at a time: memory does not grow with the text where the state does not


def run(
    model: LanguageModel,
    *,
    device: str,
    text: str,
    tokenizer: str = "own",
    tokens: Annotated[int, AtLeast(2)] = 2048,
    documents: Annotated[int, AtLeast(2)] = 64,
    batch: Annotated[int, AtLeast(1)] = 16,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Loss given 2, 4, 8, ... tokens of context, as far as the model can represent them.

    text: pocket (its long documents), or a folder of text files; of either a part that is never trained on.
    tokenizer: own, pocket (that world's), a tokenizer.json or a World vocabulary.
    tokens: of the longest context.
    documents: how many the losses are measured on.
    batch: documents at once.

    Returns metrics and, in samples, `context` (tokens), `losses` [documents, lengths] (nats a token) and, for the
    pocket world, `levels`: the mean losses of readers who look nothing up and who look all up.
    """
    encode, _ = corpus.codec(model, tokenizer)
    reach = min(tokens, model.spec.max_tokens or tokens)
    rows = corpus.segments(text, encode, tokens + 1, documents)  # the same text whatever a model reaches
    curve = against_context(model, rows[:, : reach + 1], batch, device)
    metrics = {**identified(rows), "tokens": reach, "trained_tokens": model.spec.context_length}
    return metrics, {**curve, "levels": levels(text, encode, tokens + 1, documents)}


def identified(rows: np.ndarray) -> dict[str, Any]:
    """How many documents, and what stands for their tokens: losses are compared over the same ones alone."""
    return {"documents": len(rows), "documents_fingerprint": hashlib.sha256(rows.tobytes()).hexdigest()[:16]}


def against_context(model: LanguageModel, rows: np.ndarray, batch: int, device: str) -> dict[str, list[Any]]:
    """Over documents [D, T + 1] of token ids: the lengths, and each document's losses [D, lengths]."""
    lengths = octaves(rows.shape[1] - 1)
    parts = [torch.from_numpy(part.astype(np.int64)).to(device) for part in _parts(rows, batch)]
    losses = np.concatenate([binned(streamed(model, part), lengths) for part in parts])
    return {"context": lengths, "losses": losses.round(5).tolist()}


def levels(text: str, encode: corpus.Encode, length: int, documents: int) -> dict[str, dict[int, float]]:
    """By name, what is known of the loss from how the text was made: length -> nats. Of the pocket world alone, and of
    lengths that end in no particular sentence, since what a sentence costs is not spread evenly over its tokens.
    """
    if text != corpus.POCKET:
        return {}
    lengths = [n for n in octaves(length - 1) if n >= FEW_SENTENCES]
    if not lengths:
        return {}
    costs = corpus.levels(encode, length, documents)
    return {
        name: dict(zip(lengths, binned([(1, nats[:, 1:])], lengths).mean(0).round(5).tolist(), strict=True))
        for name, nats in costs.items()
    }


def octaves(tokens: int) -> list[int]:
    """2, 4, 8, ... up to `tokens`."""
    return [2**i for i in range(1, tokens.bit_length())]


def binned(losses: Iterable[tuple[int, np.ndarray]], lengths: Sequence[int]) -> np.ndarray:
    """Losses as `streamed` gives them -> for each row and each length n the mean loss [B, lengths] of the tokens that
    have between 3/4 n and n tokens before them.
    """
    sums: Any = 0.0
    for first, chunk in losses:
        ends = [(max(n - max(1, n // 4) + 1 - first, 0), max(n + 1 - first, 0)) for n in lengths]
        sums = sums + np.stack([chunk[:, begin:end].sum(1) for begin, end in ends], 1)
    return np.array(sums / [max(1, n // 4) for n in lengths])


@torch.inference_mode()
def streamed(model: LanguageModel, tokens: Tensor) -> Iterator[tuple[int, np.ndarray]]:
    """tokens [B, T + 1] in chunks, the state or cache carried: how many tokens the first of a chunk's losses has before
    it, and the losses [B, chunk] in nats, float32. Raises BadInput where a logit is not finite.
    """
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    state = model.reserve(inputs.shape[1])
    for start in range(0, inputs.shape[1], CHUNK):
        hidden, state = model.hidden(inputs[:, start : start + CHUNK], state)
        logits = model.logits(hidden).float()
        if not bool(finite.rows(logits).all()):
            finite.refuse(model, inputs[:, : start + CHUNK])
        losses = F.cross_entropy(logits.transpose(1, 2), targets[:, start : start + CHUNK], reduction="none")
        yield start + 1, losses.double().cpu().numpy()


def _parts(rows: np.ndarray, batch: int) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), batch):
        yield rows[start : start + batch]


EXPERIMENT = Experiment(run, version=VERSION, reads={"text": identity.text, "tokenizer": identity.tokenizer})
