"""Text -> tokens: the pocket world, or files of a folder; for training and for loss against context."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from evals.pocket import text as pocket
from rwkv_core import tokenizer as tokenizers
from rwkv_core.spec import BadInput, LanguageModel

TRAINING_SEED, HELD_OUT_SEED = 1, 2  # of the pocket world's text
SENTENCE_TOKENS = 8  # of a chronicle, at least
CHUNK = 1 << 18  # characters that are encoded at a time, at least one document

Encode = Callable[[list[str]], list[list[int]]]


def codec(model: LanguageModel, tokenizer: str) -> tuple[Encode, int]:
    """Texts -> tokens, by a tokenizer.json or the model's own; and the token that ends a document."""
    end = int(model.spec.architecture.get("eos_token_id", 0))
    if tokenizer == "own":
        return lambda texts: [model.encode(text) for text in texts], end
    found = tokenizers.read(Path(tokenizer))
    if found.get_vocab_size() > model.spec.vocab_size:
        raise BadInput(
            f"{tokenizer}: {found.get_vocab_size():,} tokens, and {model.spec.name} has {model.spec.vocab_size:,}"
        )
    return lambda texts: [e.ids for e in found.encode_batch(texts, add_special_tokens=False)], end


def files(folder: str) -> list[Path]:
    """The text files of a folder, sorted. Raises BadInput where there are none."""
    path = Path(folder)
    found = sorted(p for p in path.rglob("*") if p.suffix in (".txt", ".raw")) if path.is_dir() else []
    if not found:
        raise BadInput(f"text {folder!r}: pocket, or a folder with .txt or .raw files, is needed")
    return found


def stream(text: str, encode: Encode, end: int, tokens: int, *, held_out: bool, long: int) -> np.ndarray:
    """The first `tokens` tokens of a text's documents, `end` after each; long: of the pocket world documents of at
    least so many tokens, 0 for its short ones.
    """
    found, count = [], 0
    for ids in _encoded(text, encode, held_out, long):
        found.append(np.array([*ids, end], dtype=np.int32))
        count += len(found[-1])
        if count >= tokens:
            break
    if not found:
        raise BadInput(f"text {text!r}: one file alone cannot be both trained on and held out; divide it")
    return np.concatenate(found)[:tokens]


def segments(text: str, encode: Encode, length: int, count: int) -> np.ndarray:
    """`count` rows [D, length] of text that is never trained on: the first of each document, then the second of each,
    and so on, so that as many documents as can be have a part. The pocket world's have the length, and give one.
    """
    documents = [
        [ids[start : start + length] for start in range(0, len(ids) - length + 1, length)]
        for ids in itertools.islice(_encoded(text, encode, held_out=True, long=length), count)
    ]
    found = [row for rows in itertools.zip_longest(*documents) for row in rows if row is not None]
    if len(found) < 2:
        raise BadInput(f"text {text!r}: has no two pieces of {length:,} tokens")
    return np.array(found[:count], dtype=np.int32)


def windows(tokens: np.ndarray, window: int, batch: int, seed: int) -> Callable[[int], tuple[Tensor]]:
    """step -> [batch, window + 1] tokens: every window of the text once in a shuffled order (less
    those that fill no batch), then again in another.
    """
    count = (len(tokens) - 1) // window
    if count < batch:
        raise BadInput(f"the text has {len(tokens):,} tokens, too few for a batch of {batch} windows of {window}")
    steps = count // batch

    @functools.lru_cache(maxsize=2)
    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng([seed, epoch]).permutation(count)

    def at(step: int) -> tuple[Tensor]:
        epoch, place = divmod(step, steps)
        starts = order(epoch)[place * batch : (place + 1) * batch] * window
        rows = np.stack([tokens[start : start + window + 1] for start in starts])
        return (torch.from_numpy(rows.astype(np.int64)),)

    return at


def _encoded(text: str, encode: Encode, held_out: bool, long: int) -> Iterator[list[int]]:
    chunk: list[str] = []
    characters = 0
    for document in _documents(text, held_out, long):
        chunk.append(document)
        characters += len(document)
        if characters >= CHUNK:
            yield from encode(chunk)
            chunk, characters = [], 0
    yield from encode(chunk)


def _documents(text: str, held_out: bool, long: int) -> Iterator[str]:
    """held_out: another part of the text, never trained on: for files, those whose name comes last (one in ten, at
    least one), for the pocket world another seed.
    """
    if text == "pocket":
        seed = HELD_OUT_SEED if held_out else TRAINING_SEED
        return pocket.chronicles(seed, long // SENTENCE_TOKENS + 1) if long else pocket.pieces(seed)
    found = files(text)
    last = max(1, len(found) // 10)
    return (path.read_text(errors="replace") for path in (found[-last:] if held_out else found[:-last]))
