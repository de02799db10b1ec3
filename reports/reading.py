"""What the report knows of an experiment: how its records become rows, and what its views tell apart."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from reports.records.record import Record
from reports.statistics.paired import Paired

Row = dict[str, Any]  # of one value; reports.rows says which columns all of them have
Kind = Literal["time", "bytes", "score"]  # of times and bytes less is better


@dataclass(frozen=True)
class Reading:
    """How the records of one experiment are read.

    rows: the values of a measured record, each with the columns that only this experiment has.
    apart: the parameters that the views tell apart by themselves, in columns, panels, along axes, or as what the best
        is chosen of; None: all of them. What else differs between cells of one label is said behind the label.
    oldest: the oldest version of the experiment whose records are read.
    seeds_pooled: the views show means over the seeds of fresh weights.
    line_of_cell: the tables have a line a cell, with its number of items.
    items: what the parameter `docs` counts.
    compared: the metrics of the rows by which two stores are compared; of several contexts it is the largest.
    on_items: which of these scores is tested item by item, and two records by it, the first minus the second; None
        where they did not score the same items.
    """

    rows: Callable[[Record], Iterator[Row]]
    apart: Collection[str] | None
    oldest: int = 1
    seeds_pooled: bool = False
    line_of_cell: bool = False
    items: str = "docs"
    compared: Mapping[str, Kind] = field(default_factory=dict)
    on_items: Callable[[Record, Record], tuple[str, Paired] | None] | None = None
