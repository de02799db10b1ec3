"""`python -m bench.launch` is the fresh process: cells as lines of JSON on its stdin, or as its arguments, records as
lines on its stdout.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator

import torch

from bench import run
from bench.launch.process import die_with_parent, unpacked
from reports.records.cell import Cell
from reports.records.record import Record


def measure(lines: Iterable[str]) -> None:
    """Measure the cells of these lines; records go to stdout, and what is printed to stderr."""
    die_with_parent()
    if os.getppid() == 1:
        sys.exit("the run that started this measurement has ended")
    rank = os.environ.get("RANK")  # torchrun's number of this process among several
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        for record in _one_by_one(map(unpacked, lines)):
            if rank in (None, "0"):
                answers.write(json.dumps(record.to_json()) + "\n")  # in one line
                answers.flush()
            if rank is not None and not record.measured:  # so that torchrun stops the others
                sys.exit(record.traceback or record.error)


def _one_by_one(cells: Iterable[Cell]) -> Iterator[Record]:
    """The record of each cell as soon as it is there; a model stays loaded while the cells are of it."""
    for _, group in itertools.groupby(cells, key=lambda cell: (cell.group, cell.experiment)):
        _free()
        for record in run.measure(group):
            yield record
            _free()


def _free() -> None:
    """Give back what a GPU holds of earlier cells, so that the next one's memory is its own."""
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


if __name__ == "__main__":
    measure(sys.argv[1:] or sys.stdin)
