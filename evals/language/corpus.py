"""Text -> tokens: the pocket world, or files of a folder; for training and for loss against context."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from evals.pocket import text as pocket
from rwkv_core import machine, utf8
from rwkv_core import text as tokenizers
from rwkv_core.errors import BadInput
from rwkv_core.spec import LanguageModel

POCKET = "pocket"
TRAINING_SEED, HELD_OUT_SEED = 1, 2  # of the pocket world's text
SENTENCE_TOKENS = 7  # of a chronicle, on the average at least
BYTES = 2 * 4  # of memory a token: once in its document, once in them all
CHUNK = 1 << 18  # characters that are encoded at a time, at least one document

Encode = Callable[[list[str]], list[list[int]]]


def codec(model: LanguageModel, tokenizer: str) -> tuple[Encode, int]:
    """Texts -> tokens, by a tokenizer's file or the model's own; and the token that ends a document."""
    spec = model.spec
    codec = model.codec if tokenizer == "own" else tokenizers.of_file(Path(tokenizer))
    if tokenizer != "own" and codec.size > spec.vocab_size:
        raise BadInput(f"{tokenizer}: {codec.size:,} tokens, and {spec.name} has {spec.vocab_size:,}")
    return codec.within(spec.vocab_size).encode_all, int(spec.architecture.get("eos_token_id", 0))


def files(folder: str) -> list[Path]:
    """The text files of a folder, sorted. Raises BadInput where there are none."""
    path = Path(folder)
    paths = sorted(p for p in path.rglob("*") if p.suffix in (".txt", ".raw")) if path.is_dir() else []
    if not paths:
        raise BadInput(f"text {folder!r}: pocket, or a folder with .txt or .raw files, is needed")
    return paths


def stream(text: str, encode: Encode, end: int, tokens: int, *, held_out: bool, long: int) -> np.ndarray:
    """The first `tokens` tokens of a text's documents, `end` after each (of files that are held out, as many of each);
    long: of the pocket world documents of at least so many tokens, 0 for its short ones.
    """
    free = machine.free_memory()
    if free is not None and BYTES * tokens > free:
        raise BadInput(f"text {text!r}: {tokens:,} tokens are asked for, more than fit into memory; ask for fewer")
    share = -(-tokens // len(_files_of_part(text, held_out=True))) if held_out and text != POCKET else tokens
    parts, count = [], 0
    for ids in _encoded(text, encode, held_out, long):
        parts.append(np.array([*ids, end][:share], dtype=np.int32))
        count += len(parts[-1])
        if count >= tokens:
            break
    if not parts:
        raise BadInput(f"text {text!r}: one file alone cannot be both trained on and held out; divide it")
    return np.concatenate(parts)[:tokens]


def segments(text: str, encode: Encode, length: int, count: int) -> np.ndarray:
    """`count` rows [D, length] of text that is never trained on: the first of each document, then the second of each,
    and so on, so that as many documents as can be have a part. The pocket world's have the length, and give one.
    """
    documents = [
        [ids[start : start + length] for start in range(0, len(ids) - length + 1, length)]
        for ids in itertools.islice(_encoded(text, encode, held_out=True, long=length), count)
    ]
    pieces = [row for rows in itertools.zip_longest(*documents) for row in rows if row is not None]
    if len(pieces) < 2:
        raise BadInput(f"text {text!r}: has no two pieces of {length:,} tokens")
    return np.array(pieces[:count], dtype=np.int32)


def levels(encode: Encode, length: int, count: int) -> dict[str, np.ndarray]:
    """What those `segments` of the pocket world cost a reader who looks nothing up and one who looks all up: nats of
    each token [D, length], a sentence's spread over its tokens.
    """
    costs: dict[str, list[np.ndarray]] = {"no look-up": [], "perfect look-up": []}
    for document in itertools.islice(_chronicles(held_out=True, long=length), count):
        spaced = [document[0].text, *(f" {sentence.text}" for sentence in document[1:])]
        counts = [len(ids) for ids in encode(spaced)]
        for nats, rows in zip(zip(*(sentence[1:] for sentence in document), strict=True), costs.values(), strict=True):
            rows.append(np.repeat(np.array(nats) / counts, counts)[:length])
    return {name: np.stack(rows) for name, rows in costs.items()}


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
    """held_out: another part of the text, never trained on."""
    if text == POCKET:
        if long:
            return map(pocket.joined, _chronicles(held_out, long))
        return pocket.pieces(HELD_OUT_SEED if held_out else TRAINING_SEED)
    return (utf8.read(path) for path in _files_of_part(text, held_out))


def _chronicles(held_out: bool, long: int) -> Iterator[list[pocket.Sentence]]:
    return pocket.chronicles(HELD_OUT_SEED if held_out else TRAINING_SEED, long // SENTENCE_TOKENS + 1)


def _files_of_part(text: str, held_out: bool) -> list[Path]:
    """Of a folder's files those whose name comes last (one in ten, at least one) are held out; the others are shuffled,
    so that a part of them is a sample of all.
    """
    paths = files(text)
    last = max(1, len(paths) // 10)
    if held_out:
        return paths[-last:]
    return random.Random(TRAINING_SEED).sample(paths[:-last], len(paths) - last)
