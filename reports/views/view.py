"""What a page is made of: sections with text, tables and pictures; and what several of them are made with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from reports.draw import numbers
from reports.draw.figure import Picture
from reports.draw.looks import label
from reports.draw.table import Table
from reports.reading import Reading, Row
from reports.records.record import Record
from reports.results import Results
from reports.sentences import Comparison
from reports.views.families import ordered

DISTURBED = "†"  # behind a time


@dataclass(frozen=True)
class View:
    """A section of the page. text: paragraphs, plain. comparisons: what becomes its sentences, when the tests of the
    whole page are corrected. printed: what the terminal shows once the page is written.
    """

    name: str
    title: str
    text: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    printed: Table | None = None
    comparisons: list[Comparison] = field(default_factory=list)


@dataclass(frozen=True)
class Section:
    """A module's part of the page. views: none where there is nothing to show. readings: of the experiments that it
    shows, by name.
    """

    views: Callable[[Results], Iterator[View]]
    readings: Mapping[str, Reading] = field(default_factory=dict)


def parts(frame: pd.DataFrame, where: Sequence[str]) -> Iterator[tuple[str, tuple[Any, ...], pd.DataFrame]]:
    """The parts of a frame whose rows agree in the columns `where`, in the order of their first rows.

    Each with what numbers its name ("" for the first, then "-2", "-3", ...) and its values of the columns.
    """
    if frame.empty:
        return
    for i, (key, part) in enumerate(frame.groupby(list(where), sort=False, dropna=False)):
        yield f"-{i + 1}" if i else "", key, part


def mark(weights: str) -> str:
    """What a heading says of the kind of weights."""
    return "pocket world" if weights == "pocket" else f"{weights} weights"


def timed(row: Any, digits: int | None = None) -> str:
    """Milliseconds of a row of seconds, in brackets the least and the largest of the repeats; marked if disturbed."""
    text = numbers.spread(row.value, row.low, row.high, lambda seconds: numbers.milliseconds(seconds, digits))
    return text + (DISTURBED if row.disturbed else "")


def of_task(record: Record, key: str = "title") -> Row:
    """The column `task_title` of a record's rows, where its metrics say how its task is to be called."""
    return {"task_title": record.metrics[key]} if key in record.metrics else {}


def task_titles(frame: pd.DataFrame, known: Mapping[str, str]) -> dict[str, str]:
    """What the tasks of a frame are called, in the order of `known`, those that it does not know last: as their records
    say, else as `known` does, else by their names.
    """
    names = dict.fromkeys(frame.task)
    titles = {task: known.get(task, task) for task in [*known, *names] if task in names}
    if "task_title" in frame:
        titles |= frame.dropna(subset="task_title").groupby("task").task_title.last().to_dict()
    return titles


def bounds_note(table: pd.DataFrame) -> str:
    """What stands below a table in which all or none of some answers were right."""
    bounded = table.astype(str).apply(lambda column: column.str.contains("≥|≤")).to_numpy().any()
    return " ≥ and ≤: all or none were right; the 95 % bound by the rule of three, 3/n." if bounded else ""


def disturbed_note(frame: pd.DataFrame) -> str:
    """What stands below a table of times of which some are disturbed."""
    note = f" {DISTURBED} Something else took the machine meanwhile (see the last sections): compared with nothing."
    return note if frame.disturbed.any() else ""


def eager_note(frame: pd.DataFrame) -> str:
    """What stands below a table of models: of which families eager attention is the fastest that transformers has."""
    eager = frame[(frame.attention == "eager") & (frame.attention_setting == "default")]
    if eager.empty:
        return ""
    families = [label(family) for family in ordered(eager, "family").family.unique()]
    named = " and ".join(filter(None, [", ".join(families[:-1]), families[-1]]))
    return f" {named}: eager attention, since transformers has no sdpa for {'it' if len(families) == 1 else 'them'}."
