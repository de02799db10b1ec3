"""The items of the prompt study, wherever they lie, and what a model is asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evals import labels
from evals.prompts import chats, readers
from evals.prompts.tasks import Order, Task
from rwkv_core.errors import BadInput

END = "\nAnswer:"  # after every prompt; ours, since a model that was not tuned to chat needs it


@dataclass(frozen=True)
class Item:
    """What fills the template, and the numbers of the right labels."""

    values: dict[str, Any]
    gold: tuple[int, ...]


def load(task: Task, data: str, docs: int = 0) -> list[Item]:
    """The first `docs` items, 0 for all. Raises BadInput for data that cannot be read, Unsupported for none at all."""
    rows = readers.rows(task, data, docs)
    return [Item(row, _gold(task, row, f"{task.name}, item {number}")) for number, row in enumerate(rows, 1)]


def _gold(task: Task, row: dict[str, Any], where: str) -> tuple[int, ...]:
    gold = row[task.gold]
    numbers = []
    for one in gold if isinstance(gold, list) else [gold]:
        number = task.labels.index(one) if one in task.labels else labels.whole(one)
        if number is None or not 0 <= number < len(task.labels):
            raise BadInput(f"{where}: {task.gold} is {one!r}, none of {', '.join(task.labels)}")
        numbers.append(number)
    if not numbers:
        raise BadInput(f"{where}: {task.gold} is empty; an item without a right label cannot be scored")
    return tuple(numbers)


def prompt(task: Task, wording: Order, item: Item, form: str = "") -> str:
    """What a model is given; where it is to reason first, it is not told to answer at once.

    form: of a chat, one of chats.template, which has its own sign that the answer follows.
    """
    text = wording.template.format(**{**item.values, "labels": ", ".join(task.labels)})
    if form:
        return chats.filled(form, text)
    return text if wording.reasoning else text + END


def fingerprint(items: Sequence[Item]) -> str:
    """Of every item's content, wherever it was read from."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps([item.values, item.gold], sort_keys=True).encode())
    return digest.hexdigest()[:16]
