"""The precision experiment: how far a model in fewer bits is from itself in float32, on the same text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from evals import identity
from evals.experiment import AtLeast, Experiment
from evals.language import corpus
from evals.language.context import CHUNK, identified
from rwkv_core import finite
from rwkv_core.load import load
from rwkv_core.spec import LanguageModel

VERSION = 1


def run(
    model: LanguageModel,
    *,
    device: str,
    text: str = corpus.POCKET,
    tokenizer: str = "own",
    tokens: Annotated[int, AtLeast(2)] = 512,
    documents: Annotated[int, AtLeast(2)] = 16,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compare the predictions of every token with those of the same weights in float32.

    text: pocket (its long documents), or a folder of text files; of either a part that is never trained on.
    tokenizer: own, pocket (that world's), a tokenizer.json or a World vocabulary.
    tokens: of each document.
    documents: how many are read.

    Returns metrics (means over all tokens) and, in samples, of each document the same: `kl`, the divergence of the
    model's distribution from float32's in nats, `agreement`, the share of tokens with the same likeliest one, and the
    `loss` of both in nats a token.
    """
    encode, _ = corpus.codec(model, tokenizer)
    rows = corpus.segments(text, encode, tokens + 1, documents)
    exact = load(model.spec, device=device, dtype="float32")
    samples: dict[str, list[float]] = {"kl": [], "agreement": [], "loss": [], "loss_float32": []}
    for row in rows:
        read = torch.tensor(row[None], dtype=torch.long, device=device)
        parts = torch.tensor(list(_compared(model, exact, read)), dtype=torch.float64)
        for name, value in zip(samples, parts.sum(0).div(tokens).tolist(), strict=True):
            samples[name].append(value)
    means = {name: sum(values) / len(values) for name, values in samples.items()}
    return {**means, **identified(rows), "tokens": tokens}, samples


@torch.inference_mode()
def _compared(model: LanguageModel, exact: LanguageModel, tokens: Tensor) -> Iterator[list[float]]:
    """tokens [1, T + 1] in chunks: the sums over a chunk of what `run` returns of each document. Raises BadInput where
    a logit is not finite.
    """
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    states = [one.reserve(inputs.shape[1]) for one in (model, exact)]
    for start in range(0, inputs.shape[1], CHUNK):
        logs = []
        for i, one in enumerate((model, exact)):
            hidden, states[i] = one.hidden(inputs[:, start : start + CHUNK], states[i])
            logits = one.logits(hidden).double()
            if not bool(finite.rows(logits).all()):
                finite.refuse(one, inputs[:, : start + CHUNK])
            logs.append(logits[0])
        losses = [F.cross_entropy(part, targets[0, start : start + CHUNK], reduction="sum") for part in logs]
        yield [float(value) for value in (*map(torch.sum, apart(*logs)), *losses)]


def apart(logits: Tensor, exact: Tensor) -> tuple[Tensor, Tensor]:
    """Two distributions of the next token, as logits [T, V]: at each position the divergence of the first from the
    exact one in nats, [T], and whether the likeliest token is the same, [T].
    """
    few, full = (part.double().log_softmax(-1) for part in (logits, exact))
    return F.kl_div(few, full, reduction="none", log_target=True).sum(-1), logits.argmax(-1) == exact.argmax(-1)


EXPERIMENT = Experiment(run, version=VERSION, reads={"text": identity.text, "tokenizer": identity.tokenizer})
