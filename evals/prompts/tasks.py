"""The tasks of the prompt study, one file each in configs/prompts: where the items are, their labels, their prompts."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import configs
from evals import labels
from evals.prompts import readers
from rwkv_core.errors import BadInput, did_you_mean

END = "\nAnswer:"  # after every prompt; ours, since a model that was not tuned to chat needs it


@dataclass(frozen=True)
class Order:
    """One wording of a task. template: the prompt, with the item's fields in braces; reasoning: asks for it first."""

    template: str
    source: str
    reasoning: bool = False


@dataclass(frozen=True)
class Task:
    """A file of configs/prompts. answers: by label the words that say it, the labels themselves unless given. note: is
    printed with the results. effects: orders that are compared. gold: the field that holds the right labels, by number
    or by name.
    """

    name: str
    label: str
    metric: str
    file: str
    fields: list[str]
    labels: list[str]
    orders: dict[str, Order]
    answers: dict[str, list[str]]
    effects: list[tuple[str, str]]
    published: str = ""
    note: str = ""
    gold: str = "label"
    reader: str = "jsonl"
    hub: dict[str, str] | None = None
    new_tokens: int = 16


@dataclass(frozen=True)
class Item:
    """What fills the template, and the numbers of the right labels."""

    values: dict[str, Any]
    gold: tuple[int, ...]


@functools.cache
def catalogue() -> dict[str, Task]:
    """Every task by name."""
    found = {}
    for name, entry in configs.read("prompts").items():
        orders = {wording: Order(**order) for wording, order in entry["orders"].items()}
        effects = [(first, second) for first, second in entry["effects"]]
        answers = {label: [label] for label in entry["labels"]} | entry.get("answers", {})
        found[name] = Task(name, **{**entry, "orders": orders, "answers": answers, "effects": effects})
    return found


def order(task: Task, name: str) -> Order:
    """One wording of a task. Raises BadInput for an unknown one."""
    if name not in task.orders:
        raise BadInput(f"{task.name} has no order {name!r}{did_you_mean(name, task.orders)}")
    return task.orders[name]


def items(task: Task, data: str, docs: int = 0) -> list[Item]:
    """The first `docs` items, 0 for all. Raises BadInput for data that cannot be read, Unsupported for none at all."""
    rows = readers.rows(task, data, docs)
    return [Item(row, _gold(task, row, f"{task.name}, item {number}")) for number, row in enumerate(rows, 1)]


def _gold(task: Task, row: dict[str, Any], where: str) -> tuple[int, ...]:
    given = row[task.gold]
    found = []
    for one in given if isinstance(given, list) else [given]:
        number = task.labels.index(one) if one in task.labels else labels.whole(one)
        if number is None or not 0 <= number < len(task.labels):
            raise BadInput(f"{where}: {task.gold} is {one!r}, none of {', '.join(task.labels)}")
        found.append(number)
    if not found:
        raise BadInput(f"{where}: {task.gold} is empty; an item without a right label cannot be scored")
    return tuple(found)


def prompt(task: Task, wording: Order, item: Item) -> str:
    """What a model is given; where it is to reason first, it is not told to answer at once."""
    asked = wording.template.format(**{**item.values, "labels": ", ".join(task.labels)})
    return asked if wording.reasoning else asked + END


def fingerprint(found: Sequence[Item]) -> str:
    """Of every item's content, wherever it was read from."""
    digest = hashlib.sha256()
    for item in found:
        digest.update(json.dumps([item.values, item.gold], sort_keys=True).encode())
    return digest.hexdigest()[:16]
