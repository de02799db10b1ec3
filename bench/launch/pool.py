"""Cells side by side, in processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

import torch

from bench import run
from bench.launch.process import die_with_parent
from reports.records.cell import Cell
from reports.records.record import Record
from rwkv_core.errors import BadInput


def beside(cells: Sequence[Cell], jobs: int) -> Iterator[Record]:
    """Cells in `jobs` processes side by side, each with its share of the cores and a model loaded for each cell; the
    records as they end. Raises BadInput where a process is killed.
    """
    threads = max(1, run.threads() // jobs)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _enter_pool, (threads,)) as pool:
        try:
            submitted = [pool.submit(_measure, cell) for cell in cells]
            pool.submit(int)  # wakes the pool's watcher: it was last told before the last process was there
            for future in as_completed(submitted):
                yield future.result()
        except BaseException as error:
            for child in multiprocessing.active_children():  # or they would end what they have begun
                child.kill()
            if isinstance(error, BrokenProcessPool):
                raise BadInput(
                    f"one of {jobs} processes was killed (for memory?); the same command goes on, with fewer --jobs"
                ) from error
            raise


def _enter_pool(threads: int) -> None:
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then kills this one
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # one progress bar is enough; errors are in the records
    torch.set_num_threads(threads)


def _measure(cell: Cell) -> Record:
    (record,) = run.measure([cell])
    return record
