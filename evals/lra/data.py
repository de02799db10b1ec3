"""Long Range Arena's tasks: where a task's samples come from, how they are divided, and how they become arrays."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from evals.lra import listops, pathfinder, readers
from evals.lra.readers import Sample
from evals.pocket.text import chronicle, joined
from rwkv_core import machine
from rwkv_core.errors import BadInput, Unsupported

RawSplits = tuple[list[Sample], list[Sample], list[Sample]]  # train, validation, test

GENERATED = "generated"
GENERATION = 2  # of the generators; a change in what they draw makes what was kept another's
CIFAR_BATCHES = "cifar-10-batches-py"
HELD_OUT = 10  # one training sample in so many validates, where a task has no such part
BLOCK = 50  # images that one process draws at a time


@dataclass(frozen=True)
class Split:
    """tokens [N, T], 0 for padding and else a value plus one; lengths, labels [N]. second: of pairs, the same again.
    An empty text has the length 1, that of its padding, as LRA's own models see it: a mean over no token is no number.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    second: np.ndarray | None = None
    second_lengths: np.ndarray | None = None

    @property
    def majority(self) -> float:
        """Accuracy of always the most frequent label."""
        return float(np.bincount(self.labels).max() / len(self.labels))


@dataclass(frozen=True)
class Task:
    """title: as in the paper's table. folder: where its files lie, by which they are known to be there. values: how
    many a token may have. stand_in: another task is generated.
    """

    title: str
    folder: str
    values: int
    classes: int
    generate: Callable[[int, int, int], list[Sample]] | None
    read: Callable[[Path], RawSplits]
    pairs: bool = False
    stand_in: bool = False


class Parts(NamedTuple):
    """What a model is trained, chosen and tested on, and where it came from."""

    train: Split
    validation: Split
    test: Split
    source: str


def folder(name: str, data: str) -> Path | None:
    """The folder that a task is read from, in the release's form; None where the task is generated."""
    if data == GENERATED:
        return None
    batches = Path(data) / CIFAR_BATCHES
    path = batches if name == "image" and batches.is_dir() else Path(data) / TASKS[name].folder
    return path if path.is_dir() or TASKS[name].generate is None else None


def load(name: str, data: str, length: int, counts: Sequence[int], seed: int, cache: Path | None = None) -> Parts:
    """A task's three parts, at most `counts` samples of each (0: all), cut at `length` tokens. data: generated, or a
    folder with the release's files. cache: a folder in which generated
    parts are kept. Raises BadInput for broken files, Unsupported where a task cannot be generated.
    """
    task = TASKS[name]
    if data == GENERATED:
        if task.generate is None:
            raise Unsupported(f"{task.title}: its data are not generated; give a folder (see docs/long-range-arena.md)")
        if not all(counts):
            raise BadInput(f"{task.title}: say how many samples are to be generated")
        key = hashlib.sha256(f"{GENERATION} {name} {length} {[*counts]} {seed}".encode()).hexdigest()[:12]
        archive = cache / f"lra-{name}-{key}.npz" if cache is not None else None
        if archive is None or not archive.is_file():
            samples = task.generate(sum(counts), length, seed)
            ends = itertools.pairwise([0, *itertools.accumulate(counts)])
            train, validation, test = (packed(samples[start:end], length) for start, end in ends)
            if archive is not None:
                _save_archive([train, validation, test], archive)
        else:
            train, validation, test = _load_archive(archive)
        return Parts(train, validation, test, "stand-in" if task.stand_in else GENERATED)
    splits = task.read(Path(data))
    for part, what in zip(splits, ("training", "validation", "test"), strict=True):
        if not part:
            raise BadInput(f"{task.title}: {Path(data) / task.folder} gives no sample for the {what} part")
    resized = ([_smaller(one, length) for one in part] if name == "image" else part for part in splits)
    train, validation, test = (
        packed(_some(part, count, seed), length) for part, count in zip(resized, counts, strict=True)
    )
    return Parts(train, validation, test, "files")


def _save_archive(parts: Sequence[Split], path: Path) -> None:
    arrays = {f"{i} {key}": value for i, part in enumerate(parts) for key, value in vars(part).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{os.getpid()}-{path.name}")  # another process may draw the same
    np.savez_compressed(unfinished, allow_pickle=False, **{k: v for k, v in arrays.items() if v is not None})
    unfinished.replace(path)


def _load_archive(path: Path) -> list[Split]:
    fields: list[dict[str, np.ndarray]] = [{}, {}, {}]
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays:
                part, key = name.split(" ")
                fields[int(part)][key] = arrays[name]
        return [Split(**part) for part in fields]
    except Exception as error:  # a damaged archive can raise anything
        raise BadInput(f"{path}: damaged ({error or type(error).__name__}); remove it to have it anew") from error


def packed(samples: Sequence[Sample], length: int) -> Split:
    """Samples as arrays, cut at `length` and padded to the longest."""
    first, lengths = _rectangle([sample.first for sample in samples], length)
    labels = np.array([sample.label for sample in samples], dtype=np.int64)
    if samples[0].second is None:
        return Split(first, lengths, labels)
    second, second_lengths = _rectangle([sample.second for sample in samples if sample.second is not None], length)
    return Split(first, lengths, labels, second, second_lengths)


def _rectangle(rows: Sequence[np.ndarray], length: int) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([max(1, min(len(row), length)) for row in rows], dtype=np.int64)
    tokens = np.zeros((len(rows), int(lengths.max())), dtype=np.uint16)
    for to, row in zip(tokens, rows, strict=True):
        to[: len(row)] = row[:length].astype(np.uint16) + 1
    return tokens, lengths


def _smaller(image: Sample, length: int) -> Sample:
    """CIFAR-10 in at most `length` pixels, each the mean of those that it stands for."""
    side = math.isqrt(min(length, len(image.first)))
    each, remainder = divmod(math.isqrt(len(image.first)), side)
    if remainder:
        raise BadInput(f"length {length}: a CIFAR-10 image has 1024 pixels, or 256, 64 or 16 where it is made smaller")
    means = image.first.reshape(side, each, side, each).mean((1, 3))
    return Sample(np.rint(means).astype(np.uint8).flatten(), image.label)


def _some(samples: list[Sample], count: int, seed: int) -> list[Sample]:
    return random.Random(seed).sample(samples, count) if 0 < count < len(samples) else samples


def _divided(samples: list[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Training and validation part of a training set that has no validation part, always the same."""
    order = random.Random(0).sample(samples, len(samples))
    training_count = len(samples) - len(samples) // HELD_OUT
    return order[:training_count], order[training_count:]


def _make_listops(count: int, length: int, seed: int) -> list[Sample]:
    """In the release's bounds, or where less is asked for between a quarter of it and itself, as those are."""
    bounds = listops.BOUNDS if length >= listops.BOUNDS[1] else (length // 4, length + 1)
    examples = listops.examples(count, seed, bounds)
    return [Sample(np.frombuffer(one.tokens, dtype=np.uint8), one.value) for one in examples]


def _read_listops(folder: Path) -> RawSplits:
    paths = (folder / "listops-1000" / f"basic_{part}.tsv" for part in ("train", "val", "test"))
    train, validation, test = (list(readers.listops_tsv(path)) for path in paths)
    return train, validation, test


def _read_text(folder: Path) -> RawSplits:
    """IMDb. LRA validates on the test part; here a tenth of the training part is kept for it."""
    train, test = (list(readers.imdb(folder / "aclImdb" / part)) for part in ("train", "test"))
    return *_divided(train), test


def _make_retrieval(count: int, length: int, seed: int) -> list[Sample]:
    """Two halves of one chronicle of the pocket world (1), or of two (0): who is the same?"""
    sentences = max(4, length // 30)
    samples = []
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        label = rng.randrange(2)
        document, distractor = (chronicle(rng, 2 * sentences)[1:] for _ in range(2))
        first, second = joined(document[:sentences]), joined((document if label else distractor)[sentences:])
        samples.append(Sample(_text(first), label, _text(second)))
    return samples


def _read_retrieval(folder: Path) -> RawSplits:
    paths = (folder / "tsv_data" / f"new_aan_pairs.{part}.tsv" for part in ("train", "eval", "test"))
    train, validation, test = (list(readers.aan_tsv(path)) for path in paths)
    return train, validation, test


def _text(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), dtype=np.uint8)


def _read_image(folder: Path) -> RawSplits:
    """CIFAR-10, its own batches or a folder for each class."""
    batches = folder / CIFAR_BATCHES
    if batches.is_dir():
        train = list(readers.cifar_batches([batches / f"data_batch_{i}" for i in range(1, 6)]))
        return *_divided(train), list(readers.cifar_batches([batches / "test_batch"]))
    train, test = (list(readers.cifar_folders(folder / "cifar10" / part)) for part in ("train", "test"))
    return *_divided(train), test


def _make_pathfinder(count: int, length: int, seed: int, *, size: int) -> list[Sample]:
    blocks = -(-count // BLOCK)
    draw = partial(_draw_pathfinder, size=size, seed=seed)
    with get_context("spawn").Pool(min(machine.cores(), blocks)) as pool:
        results = tqdm(pool.imap(draw, range(blocks)), total=blocks, desc=f"drawing Pathfinder {size}", leave=False)
        return [sample for block in results for sample in block][:count]


def _draw_pathfinder(block: int, size: int, seed: int) -> list[Sample]:
    rng = np.random.default_rng([seed, block])
    images = [pathfinder.draw(rng, pathfinder.SIZES[size]) for _ in range(BLOCK)]
    return [Sample(image.flatten(), label) for image, label in images]


def _read_pathfinder(folder: Path, *, size: int) -> RawSplits:
    """The hard difficulty; consecutive slices, as LRA takes them."""
    samples = list(readers.pathfinder(folder / f"pathfinder{size}" / "curv_contour_length_14", size))
    tenth = len(samples) // 10
    return samples[: 8 * tenth], samples[8 * tenth : 9 * tenth], samples[9 * tenth :]


def _pathfinder(size: int, title: str) -> Task:
    return Task(
        title, f"pathfinder{size}", 256, 2, partial(_make_pathfinder, size=size), partial(_read_pathfinder, size=size)
    )


TASKS: dict[str, Task] = {
    "listops": Task("ListOps", "listops-1000", len(listops.TOKENS), 10, _make_listops, _read_listops),
    "text": Task("Text", "aclImdb", 256, 2, None, _read_text),
    "retrieval": Task("Retrieval", "tsv_data", 256, 2, _make_retrieval, _read_retrieval, pairs=True, stand_in=True),
    "image": Task("Image", "cifar10", 256, 10, None, _read_image),
    "pathfinder": _pathfinder(32, "Pathfinder"),
    "pathfinder64": _pathfinder(64, "Pathfinder-64"),
    "pathx": _pathfinder(128, "Path-X"),
    "path256": _pathfinder(256, "Path-256"),
}


def root_rule(train: Split, part: Split) -> float:
    """Accuracy on a part of the value that is most frequent in training under an expression's first token."""
    first = train.tokens[:, 0]
    likely = {token: np.bincount(train.labels[first == token]).argmax() for token in np.unique(first)}
    answers = np.array([likely.get(token, -1) for token in part.tokens[:, 0]])
    return float((answers == part.labels).mean())


def fingerprint(parts: Parts) -> str:
    """Of every sample."""
    digest = hashlib.sha256()
    for split in parts[:3]:
        for array in (split.tokens, split.labels, *([] if split.second is None else [split.second])):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
