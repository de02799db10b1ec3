"""What of records is compared with those of another store: values by metric, contender and context."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from reports.reading import Reading, Row
from reports.records.record import Record
from reports.statistics.bands import spread

Name = tuple[str, str]  # a metric, and whose or how: of a race the contender
Place = tuple[float, float]  # stage and tokens, of which the last is compared
Values = Mapping[Name, Mapping[Place, "Measured"]]


@dataclass(frozen=True)
class Measured:
    """The median of the repeats of all processes, with the least and the largest; what has no repeats, thrice."""

    value: float
    low: float
    high: float
    repeats: int
    processes: int


def values(records: Sequence[Record], reading: Reading) -> Values:
    """What is compared of one side: of several processes those that nothing disturbed, together."""
    rows: dict[Name, dict[Place, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for record in (record for record in records if record.status == "ok"):
        for row in reading.rows(record):
            if row["metric"] in reading.compared and row["value"] is not None and row.get("depth") is None:
                contender = row.get("contender", "")
                at = f" at batch size {row['batch']}" if contender and "batch" in row else ""  # HFLM has several
                rows[row["metric"], contender + at][row.get("stage", 0), row.get("tokens", 0)].append(row)
    return {name: {place: _pooled(same) for place, same in places.items()} for name, places in rows.items()}


def _pooled(rows: Sequence[Row]) -> Measured:
    """The rows of one value, one a process."""
    several = itertools.chain.from_iterable(row.get("samples", [row["value"]]) for row in rows)
    row = rows[0] if len(rows) == 1 else spread("", several)
    value, repeats = row["value"], row.get("repeats", 1)
    low, high = (row["low"], row["high"]) if repeats > 1 else (value, value)
    return Measured(value, low, high, repeats, len(rows))


def named(name: Name, place: Place, places: Collection[Place]) -> str:
    """A metric with whose it is, and at which of several contexts."""
    return " ".join(filter(None, (*name, f"at {place[1]:.0f} tokens" if len(places) > 1 else "")))


def lacked(one: Values, other: Values) -> Iterator[str]:
    """What the last place of one side has and the other has not."""
    for name, places in one.items():
        if (last := max(places)) not in other.get(name, {}):
            yield f"values of {named(name, last, places)}, which the other lacks"
