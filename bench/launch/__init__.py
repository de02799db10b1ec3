"""Where cells run: the only table of launchers, and which of them runs a cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from bench import run
from bench.experiments import EXPERIMENTS
from bench.launch import pool, process
from reports.records.cell import Cell
from reports.records.record import Record


class Launcher(NamedTuple):
    """measure: (cells, jobs) -> their records as they end; jobs: how many cells run at the same time, where several do.
    concurrent: it is given the cells of all models at once; another is given those of one experiment and model.
    """

    measure: Callable[[Sequence[Cell], int], Iterator[Record]]
    concurrent: bool = False


def here(cells: Sequence[Cell], jobs: int) -> Iterator[Record]:
    """In this process, the model loaded once for all of them."""
    yield from run.measure(cells)


LAUNCHERS: dict[str, Launcher] = {
    "here": Launcher(here),
    "beside": Launcher(pool.beside, concurrent=True),
    "alone": Launcher(process.alone),
    "together": Launcher(process.together),
}


def launcher_of(cell: Cell, jobs: int) -> str:
    """Which launcher runs a cell: alone what is timed, together what several processes share, and the others beside
    each other where there is more than one job.
    """
    experiment = EXPERIMENTS[cell.experiment]
    if experiment.timed:
        return "alone"
    if experiment.processes and int(cell.params[experiment.processes]) > 1:
        return "together"
    return "beside" if jobs > 1 else "here"
