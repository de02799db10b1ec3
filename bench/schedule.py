"""Runs the cells of a matrix that the store lacks: order, resume, skipping, progress."""

from __future__ import annotations

import functools
import itertools
import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch
from tqdm import tqdm

from bench import launch, matrix, run
from bench.experiments import EXPERIMENTS
from bench.unfit import Unfit
from reports.records import provenance
from reports.records.cell import Cell
from reports.records.record import FINAL, Record
from reports.records.store import Store
from rwkv_core.errors import BadInput


@dataclass(frozen=True)
class Selection:
    """The cells of a matrix beside what its store already holds, by cell id."""

    cells: list[Cell]
    store: Store
    records: Mapping[str, Sequence[Record]]
    damaged: dict[Path, str]

    @functools.cached_property
    def pending(self) -> list[Cell]:
        """The cells without a final record; those that were disturbed come last, or they might be measured for ever.
        Of several processes of the same work the second come after the first of all models, so that what changes on
        the machine meanwhile meets all alike.
        """
        states = {cell.id: self.state(cell) for cell in self.cells}
        unmeasured = [cell for cell in self.cells if states[cell.id] not in FINAL]
        return sorted(unmeasured, key=lambda cell: (states[cell.id] == "disturbed", cell.params.get("process", 1)))

    def state(self, cell: Cell) -> str:
        """The status of the cell's record; what was timed on another machine is no record of it here."""
        records = [record for record in self.records.get(cell.id, ()) if _of_cell(record, cell)]
        return max(records, key=lambda record: record.worth).status if records else "to measure"


def _of_cell(record: Record, cell: Cell) -> bool:
    """Whether a record with a cell's id is of what the experiment, its task and its defaults are today; where it was
    timed, or ran out of memory, on this machine, with threads that wait for each other as they would now.
    """
    if record.provenance.get("definition") not in (None, run.definition(cell)):
        return False
    if any(cell.params.get(key, value) != value for key, value in record.cell.params.items()):
        return False
    if not EXPERIMENTS[cell.experiment].timed and record.status != "oom":
        return True
    waits = run.waits(launch.process.environment())
    return record.machine == _machine(cell.device) and record.provenance.get("waits", waits) == waits


@functools.cache
def _machine(device: str) -> str:
    return provenance.machine_name(run.accelerator(device))


@dataclass(frozen=True)
class Outcome:
    """How many cells ended how, and the failures of this run."""

    counts: Counter[str]
    failed: list[Record]


def choose(path: Path, folder: Path | None, only: str, overrides: Mapping[str, str] | None = None) -> Selection:
    """The cells of a matrix file whose id contains `only`, or that have that parameter.

    folder: of the store, where it is not results/NAME.
    """
    cells = matrix.read(path, overrides)
    matching = [cell for cell in cells if cell.chosen(only)]
    if not matching:
        raise BadInput(f"--only {only!r} is in none of the {len(cells)} cells; `rwkv-bench plan {path}` lists them")
    store = Store(folder or Path("results") / path.stem)
    records: dict[str, list[Record]] = {}
    whole, damaged = store.read()
    for record in whole:
        records.setdefault(record.id, []).append(record)
    for warning in damaged.values():
        tqdm.write(warning, file=sys.stderr)
    return Selection(matching, store, records, damaged)


def execute(selection: Selection, limit: int | None = None, jobs: int = 1) -> Outcome:
    """Measure what is pending, smaller cells of a model first, and store each as it ends. jobs: so many side by side,
    of those that are not timed.

    Of what is timed, a cell larger than one of the same model that ran out of memory or failed is not run: it gets
    that status, and the reason. limit: at most so many cells. Raises BadInput where the
    machine lacks the device, since a missing GPU says nothing about a model.
    """
    cells = selection.pending[:limit]
    if any(cell.device == "cuda" for cell in cells) and not torch.cuda.is_available():
        raise BadInput("the matrix asks for `device: cuda`, but torch sees no CUDA device here; use `device: cpu`")
    counts: Counter[str] = Counter()
    failed: list[Record] = []
    unfit = Unfit(
        record
        for same in selection.records.values()
        for record in same
        if record.status == "oom" and record.machine == _machine(record.cell.device)
    )
    places = {cell.id: _read_from(cell) for cell in cells}
    for path in selection.damaged:
        tqdm.write(f"{path}: kept as {selection.store.set_aside(path)}", file=sys.stderr)
    tqdm.monitor_interval = 0  # no thread of ours wakes up while something is timed
    with tqdm(total=len(cells), unit="cell", dynamic_ncols=True) as bar:
        for record in _measured(cells, jobs, unfit, bar):
            selection.store.write(record)
            counts[record.status] += 1
            if record.status == "failed":
                failed.append(record)
            if record.status != "ok":
                bar.write(f"{record.status}: {record.id}: {record.error}{places[record.id]}")
            bar.update()
    return Outcome(counts, failed)


def _measured(cells: Sequence[Cell], jobs: int, unfit: Unfit, bar: tqdm[NoReturn]) -> Iterator[Record]:
    for name, batch in _batches(cells, jobs):
        launcher = launch.LAUNCHERS[name]
        bar.set_description(f"{jobs} side by side" if launcher.concurrent else batch[0].title)
        if not EXPERIMENTS[batch[0].experiment].timed:
            yield from launcher.measure(batch, jobs)
            continue
        for cell in batch:
            refusal = unfit.refusal(cell)
            for record in [refusal] if refusal else launcher.measure([cell], jobs):
                if record.status in ("oom", "failed"):
                    unfit.add(record)
                yield record


def _batches(cells: Sequence[Cell], jobs: int) -> Iterator[tuple[str, list[Cell]]]:
    """What each launcher is given at once, in turn: first what is concurrent, then the cells of one model and
    experiment after those of another, smaller ones first.
    """
    concurrent: dict[str, list[Cell]] = {}
    sequential: list[Cell] = []
    for cell in cells:
        name = launch.launcher_of(cell, jobs)
        (concurrent.setdefault(name, []) if launch.LAUNCHERS[name].concurrent else sequential).append(cell)
    yield from concurrent.items()
    for _, group in itertools.groupby(sequential, key=lambda cell: (cell.group, cell.experiment)):
        for name, batch in itertools.groupby(sorted(group, key=_size), key=lambda cell: launch.launcher_of(cell, jobs)):
            yield name, list(batch)


def _read_from(cell: Cell) -> str:
    """Where the cell's files lie, for the user alone: records do not tell."""
    paths = [path for path in cell.paths.values() if Path(path).is_absolute()]
    return f" (reads {', '.join(paths)})" if paths else ""


def _size(cell: Cell) -> int:
    return math.prod(int(cell.params[name]) for name in EXPERIMENTS[cell.experiment].grows)
