"""Two stores beside each other, as lines for the terminal and as a table: an alarm for what became worse."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from reports import changes, page
from reports.changes import NO_DIFFERENCE, NOT_TESTED, Change
from reports.draw import numbers
from reports.draw.table import Table
from reports.matching import Matched, match
from reports.measured import Measured
from reports.reading import Kind
from reports.records import origin
from reports.records.record import Record
from reports.views import processes
from reports.views.table import READINGS
from rwkv_core.errors import BadInput
from rwkv_core.files import write_atomically

REASONS = 5  # that are said of one side
OUTDATED = "of a version that is not read any more"


def stores(
    first: Path, second: Path, only: str = "", every: bool = False, out: Path | None = None
) -> tuple[list[str], bool]:
    """The lines to print, and whether anything is worse in the second.

    only: the cells, as `run --only` chooses them. every: also what is neither worse nor better. out: a file of CSV with
    all of it. Raises BadInput where a store cannot be read, or nothing can be compared.
    """
    (records, warnings), (others, more) = page.read([first]), page.read([second])
    matched = _matched(records, others, only)
    compared, left_out = changes.of_pairs(matched.pairs, READINGS)
    left_out = left_out[0] + matched.alone[0], left_out[1] + matched.alone[1]
    if not compared:
        had = (_had(first, records, only, left_out[0]), _had(second, others, only, left_out[1]))
        raise BadInput(f"nothing in common that can be compared: {'; '.join(had)}")
    if out is not None:
        write_atomically(out, Table("changes", "", pd.DataFrame(map(_numbers, compared))).csv())
    mine, theirs = (list(itertools.chain(*side)) for side in zip(*matched.pairs, strict=True))
    lines = [*warnings, *more, f"A: {first}, B: {second}", origin.beside(mine, theirs), *_lines(compared, every)]
    lines += [
        f"{side}, not compared: {_counted(reasons)}." for side, reasons in zip("AB", left_out, strict=True) if reasons
    ]
    return [*lines, f"{len(matched.pairs)} cells matched, {_summary(compared)}"], any(
        change.worse for change in compared
    )


def _matched(first: Sequence[Record], second: Sequence[Record], only: str) -> Matched:
    chosen = [[record for record in records if record.cell.chosen(only)] for records in (first, second)]
    read = [[record for record in records if not _outdated(record)] for records in chosen]
    matched = match(*read)
    for reasons, records in zip(matched.alone, chosen, strict=True):
        reasons.update(OUTDATED for record in records if _outdated(record))
    return matched


def _outdated(record: Record) -> bool:
    return record.cell.version < READINGS[record.cell.experiment].oldest


def _had(folder: Path, records: Sequence[Record], only: str, left_out: Counter[str]) -> str:
    experiments = dict.fromkeys(record.cell.experiment for record in records if record.cell.chosen(only))
    had = f"{folder} has {', '.join(experiments) or f'no cell with {only}'}"
    return f"{had} ({_counted(left_out)})" if left_out else had


def _lines(compared: Sequence[Change], every: bool) -> Iterator[str]:
    """What is worse, then what is better, then, if asked for, the rest."""
    shown = sorted(compared, key=lambda change: (not change.worse, not change.better))
    shown = [change for change in shown if every or change.worse or change.better]
    if shown:
        frame = pd.DataFrame(map(_display, shown)).apply(lambda column: column.str.ljust(column.str.len().max()))
        yield frame.to_string(index=False, justify="left")
    if any(change.note == changes.FEW for change in shown):
        yield f"{changes.FEW.capitalize()}: {processes.BETWEEN}."


def _summary(compared: Sequence[Change]) -> str:
    worse, better = sum(change.worse for change in compared), sum(change.better for change in compared)
    alike = sum(change.verdict == NO_DIFFERENCE for change in compared)
    untested = [change for change in compared if change.verdict == NOT_TESTED]
    differing = sum(change.first != change.second for change in untested)
    return (
        f"{len(compared)} values compared: {worse} worse, {better} better, {alike} no difference shown, "
        f"{len(untested)} not tested ({differing} of them differ)."
    )


def _counted(reasons: Counter[str]) -> str:
    shown = "; ".join(f"{count} {reason}" for reason, count in reasons.most_common(REASONS))
    return shown + (f"; {sum(reasons.values())} in all" if len(reasons) > REASONS else "")


def _display(change: Change) -> dict[str, str]:
    """A line of the terminal."""
    if change.p is not None:
        size = f"{numbers.points(change.change, change.low, change.high)} points, p {numbers.p_value(change.p)}"
    elif change.kind == "score":
        size = f"{change.change:+.3g}" if change.first else ""
    else:
        size = _spread(change.change, change.low, change.high, numbers.ratio)
    return {
        "verdict": change.verdict,
        "cell": change.cell,
        "metric": change.metric,
        "A": _value(change.kind, change.first),
        "B": _value(change.kind, change.second),
        "B beside A": size,
        "note": change.note,
    }


def _value(kind: Kind, measured: Measured | None) -> str:
    if measured is None:
        return ""
    if kind == "score":
        return f"{measured.value:.4g}"
    if kind == "bytes":
        return _spread(measured.value, measured.low, measured.high, numbers.mebibytes)
    return f"{_spread(measured.value, measured.low, measured.high, numbers.milliseconds)} ms"


def _spread(value: float, low: float, high: float, show: Callable[[float], str]) -> str:
    return show(value) if low == high else numbers.spread(value, low, high, show)


def _numbers(change: Change) -> dict[str, Any]:
    """A line of the file: seconds, bytes, shares."""
    line = asdict(change)
    for side, measured in (("A", line.pop("first")), ("B", line.pop("second"))):
        line |= {f"{side} {key}": value for key, value in (measured or {}).items()}
    return line
