"""Zero-shot tasks item by item: which of two models is right where the other is wrong."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

import configs
from reports.draw import numbers
from reports.draw.table import Table
from reports.records.record import Record
from reports.results import Results, key
from reports.sentences import ON, ONE_TRAINING, Comparison
from reports.statistics import paired
from reports.views.families import compared
from rwkv_core.errors import BadInput, did_you_mean

WHERE = ["weights", "machine", "device", "dtype"]  # each has a section of the page
NOTE = (
    "Items that only one of the two gets right; the difference of the first minus the second in percentage points with "
    "its 95 % interval, items of one question taken together; p: McNemar's exact test over the questions. "
    "Not corrected for the number of comparisons; the sentences above are."
)

Labels = Mapping[tuple[str, str], str]  # of records, by their keys


def of_families(records: Sequence[Record]) -> Iterator[tuple[Record, Record]]:
    """Each family of ours with each other family, where the sizes are within a factor of 1.5 and the items the same."""
    for first, second in itertools.permutations(records, 2):
        a, b = first.cell.model, second.cell.model
        assert a and b
        smaller, larger = sorted(record.metrics["parameters"] for record in (first, second))  # as they were counted
        alike = larger < 1.5 * smaller
        if compared(a.family, b.family) and alike and same_items(first, second):
            yield first, second


def table(pairs: Sequence[tuple[Record, Record]], labels: Labels, name: str, mark: str) -> Table:
    """A line a pair and task."""
    lines = [pair(first, second, labels) for first, second in pairs]
    return Table(f"zeroshot-pairs-{name}", f"Item by item, {mark}", pd.DataFrame(lines), NOTE)


def comparisons(pairs: Sequence[tuple[Record, Record]], labels: Labels) -> Iterator[Comparison]:
    """The same as sentences are made of: a heading a pair of models, an item a task."""
    for first, second in pairs:
        entry, compared = _compared(first, second)
        yield Comparison(
            f"{labels[key(first)]} against {labels[key(second)]}, items right",
            ON,
            entry["label"],
            compared.difference,
            f"{numbers.points(compared.difference, compared.low, compared.high)} points",
            compared.p,
            undecided=compared.undecided,
            caution=ONE_TRAINING,  # a checkpoint is one
        )


def comparison(results: Results, first: str, second: str) -> Table:
    """Any two models, by name or by label, on every task and protocol that both were scored on; two checkpoints of one
    name with each other, where it is given twice. Raises BadInput where there is none.
    """
    scored = [r for r in results.records if r.status == "ok" and r.cell.experiment == "zeroshot"]
    rows = {(row["cell"], row["machine"]): row for row in results.frame("zeroshot").to_dict("records")}
    called = [(r, {rows[key(r)]["model"], rows[key(r)]["label"]}) for r in scored if key(r) in rows]
    known = sorted(set().union(*(names for _, names in called)))
    for name in (first, second):
        if name not in known:
            raise BadInput(f"no zero-shot records of {name!r} in there{did_you_mean(name, known) if known else ''}")
    differing = [column for column in WHERE if len({row[column] for row in rows.values()}) > 1]
    labels = {cell: ", ".join([row["label"], *(row[column] for column in differing)]) for cell, row in rows.items()}
    both = itertools.permutations(called, 2) if first != second else itertools.combinations(called, 2)
    lines = [
        {"protocol": a.cell.params["protocol"], **pair(a, b, labels)}
        for (a, names_a), (b, names_b) in both
        if first in names_a and second in names_b and labels[key(a)] != labels[key(b)] and same_items(a, b)
    ]
    if not lines:
        raise BadInput(f"{first} and {second} were not scored on the same items of any task")
    return Table("comparison", f"{first} and {second}, item by item", pd.DataFrame(lines), NOTE)


def same_items(first: Record, second: Record) -> bool:
    """Whether two records scored the same content by the same protocol, and hold their items."""
    if not all(isinstance(record.samples.get("items"), list) for record in (first, second)):
        return False
    if first.cell.params["task"] != second.cell.params["task"]:
        return False
    if first.cell.params["protocol"] != second.cell.params["protocol"]:
        return False
    return bool(first.metrics["data_fingerprint"] == second.metrics["data_fingerprint"])


def on_items(first: Record, second: Record) -> tuple[str, paired.Paired] | None:
    """The metric of their task, and two records by it; None where they do not hold the same items."""
    if not same_items(first, second):
        return None
    entry, compared = _compared(first, second)
    return entry["metric"], compared


def _compared(first: Record, second: Record) -> tuple[Mapping[str, Any], paired.Paired]:
    """The entry of their task in configs/tasks.yaml, and their items by its metric."""
    entry = configs.read("tasks")[first.cell.params["task"]]
    return entry, paired.compare(first.samples["items"], second.samples["items"], entry["metric"])


def pair(first: Record, second: Record, labels: Labels) -> dict[str, str]:
    """One line of the comparison of two records of the same items."""
    entry, compared = _compared(first, second)
    return {
        "task": entry["label"],
        "first": labels[key(first)],
        "second": labels[key(second)],
        "metric": entry["metric"],
        "items": str(compared.items),
        "only first": str(compared.first_only),
        "only second": str(compared.second_only),
        "difference": numbers.points(compared.difference, compared.low, compared.high, digits=2),
        "p": numbers.p_value(compared.p),
    }
