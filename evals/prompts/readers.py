"""Items of the prompt study as they are published: JSON lines, GoEmotions' and TweetEval's own files, or the hub."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from evals import hub, labels
from evals.prompts.tasks import Task
from evals.zeroshot.data import read
from rwkv_core import utf8
from rwkv_core.errors import BadInput, Unsupported

Row = dict[str, Any]


def rows(task: Task, data: str, docs: int) -> list[Row]:
    """The first `docs` rows of a task, 0 for all, from a folder or the hub. Raises Unsupported where it has none."""
    if revision := hub.revision(data):
        return _hub(task, docs, revision)
    path, *_ = paths(task, Path(data))
    if not path.is_file():
        raise Unsupported(f"{task.label}: no data; put {task.file} with {', '.join(task.fields)} below the data folder")
    items = list(itertools.islice(READERS[task.reader](task, *paths(task, Path(data))), docs or None))
    if not items:
        raise BadInput(f"{path}: no items in there")
    return items


def paths(task: Task, folder: Path) -> list[Path]:
    """Every file that a task is read from, the one with the items first."""
    path = folder / task.file
    beside = {
        "goemotions": [path.with_name("labels.txt")],
        "tweet_eval": [path.with_name(path.name.replace("_text", "_labels")), path.with_name("mapping.txt")],
    }
    return [path, *beside.get(task.reader, [])]


def _jsonl(task: Task, path: Path) -> Iterator[Row]:
    return iter(read(path, task.fields, task.gold))


def _goemotions(task: Task, path: Path, names: Path) -> Iterator[Row]:
    """Lines of text, label numbers with commas between, and an id, with tabs between; labels.txt beside names them."""
    _same_labels(names, _lines(names), task)
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        parts = line.split("\t")
        numbers = [labels.whole(part) for part in parts[1].split(",")] if len(parts) == 3 else [None]
        if None in numbers:
            raise BadInput(f"{path}, line {number}: text, label numbers and id are needed, with tabs between")
        yield {"text": parts[0], "labels": numbers}


def _tweet_eval(task: Task, path: Path, beside: Path, mapping: Path) -> Iterator[Row]:
    """A line of text a tweet, the label's number in the same line of the file of labels; mapping.txt names them."""
    _same_labels(mapping, [line.split("\t")[-1].strip() for line in _lines(mapping)], task)
    texts, numbers = _lines(path), _lines(beside)
    if len(texts) != len(numbers):
        raise BadInput(f"{path}: {len(texts)} lines, and {len(numbers)} in {beside.name}; are both files whole?")
    for number, (text, raw_label) in enumerate(zip(texts, numbers, strict=True), 1):
        if (label := labels.whole(raw_label)) is None:
            raise BadInput(f"{beside}, line {number}: a label's number is needed, not {raw_label!r}")
        yield {"text": text.strip(), "label": label}


def _same_labels(path: Path, names: list[str], task: Task) -> None:
    if names != task.labels:
        raise BadInput(f"{path}: names {', '.join(names)}; configs/prompts/{task.name}.yaml: {', '.join(task.labels)}")


def _lines(path: Path) -> list[str]:
    """All lines but blank ones at the end."""
    try:
        lines = list(utf8.lines(path))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from error
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def _hub(task: Task, docs: int, revision: str) -> list[Row]:
    if task.hub is None:
        raise Unsupported(f"{task.label}: not on the hub in a form known here; put {task.file} below a data folder")
    import datasets

    try:
        dataset = datasets.load_dataset(**task.hub, revision=revision)
    except Exception as error:  # the hub's client has many errors
        why = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
        raise BadInput(f"{task.label}: its data are neither cached nor to be had from the hub ({why})") from error
    subset = dataset.select(range(min(docs, len(dataset)))) if docs else dataset
    return [{field: row[field] for field in task.fields} for row in subset]


READERS: dict[str, Callable[..., Iterator[Row]]] = {
    "jsonl": _jsonl,
    "goemotions": _goemotions,
    "tweet_eval": _tweet_eval,
}
