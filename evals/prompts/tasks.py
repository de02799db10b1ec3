"""The tasks of the prompt study, one file each in configs/prompts: where the items are, their labels, their prompts."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import configs
from rwkv_core.errors import BadInput, did_you_mean


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


@functools.cache
def catalogue() -> dict[str, Task]:
    """Every task by name."""
    tasks = {}
    for name, entry in configs.read("prompts").items():
        orders = {wording: Order(**order) for wording, order in entry["orders"].items()}
        effects = [(first, second) for first, second in entry["effects"]]
        answers = {label: [label] for label in entry["labels"]} | entry.get("answers", {})
        tasks[name] = Task(name, **{**entry, "orders": orders, "answers": answers, "effects": effects})
    return tasks


def order(task: Task, name: str) -> Order:
    """One wording of a task. Raises BadInput for an unknown one."""
    if name not in task.orders:
        raise BadInput(f"{task.name} has no order {name!r}{did_you_mean(name, task.orders)}")
    return task.orders[name]
