"""Where cells run: here, side by side, each alone in a fresh process, or each in several processes together.

`python -m bench.launch CELL.json RECORD.json` is the fresh process.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch

from bench import run
from bench.plan import Cell
from reports.record import Record
from reports.store import write_atomically
from rwkv_core.spec import BadInput

ROOT = Path(__file__).resolve().parents[1]
PR_SET_PDEATHSIG = 1  # linux/prctl.h
LOG_TAIL = 4000  # characters of a dead process's output that its record keeps


def here(cells: Sequence[Cell]) -> Iterator[Record]:
    """In this process, the model loaded once for all of them."""
    yield from run.measure(cells)


def alone(cells: Sequence[Cell]) -> Iterator[Record]:
    """Each cell in a process of its own; this one sleeps meanwhile. A killed process is a record too."""
    for cell in cells:
        with tempfile.TemporaryDirectory(prefix="rwkv-bench-") as folder:
            yield _alone(cell, Path(folder), [sys.executable, "-m", "bench.launch"])


def together(cells: Sequence[Cell]) -> Iterator[Record]:
    """Each cell in as many processes as its `processes` says, one a GPU, by torchrun; training shares the work."""
    for cell in cells:
        count = f"--nproc-per-node={cell.params['processes']}"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", count, "-m", "bench.launch"]
        with tempfile.TemporaryDirectory(prefix="rwkv-bench-") as folder:
            yield _alone(cell, Path(folder), command)


def beside(cells: Sequence[Cell], jobs: int) -> Iterator[Record]:
    """Cells in `jobs` processes side by side, each with its share of the cores and a model loaded for each cell; the
    records as they end. Raises BadInput where a process is killed.
    """
    threads = max(1, run.threads() // jobs)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _enter_pool, (threads,)) as pool:
        try:
            for answered in as_completed([pool.submit(_measure, cell) for cell in cells]):
                yield answered.result()
        except BaseException as error:
            for child in multiprocessing.active_children():  # or they would end what they have begun
                child.kill()
            if isinstance(error, BrokenProcessPool):
                raise BadInput(
                    f"one of {jobs} processes was killed (for memory?); the same command goes on, with fewer --jobs"
                ) from error
            raise


def _enter_pool(threads: int) -> None:
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then kills this one
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # one progress bar is enough; errors are in the records
    torch.set_num_threads(threads)


def _measure(cell: Cell) -> Record:
    (record,) = run.measure([cell])
    return record


def _alone(cell: Cell, folder: Path, command: Sequence[str]) -> Record:
    asked, answered, log = folder / "cell.json", folder / "record.json", folder / "log.txt"
    asked.write_text(json.dumps({**cell.to_dict(), "paths": dict(cell.paths)}), encoding="utf-8")
    kills = _oom_kills()
    with log.open("wb") as output:
        child = subprocess.Popen(
            [*command, str(asked), str(answered)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the child
            preexec_fn=_die_with_parent,
        )
        try:
            code = child.wait()
        finally:  # nothing to do after an ordinary end; after Ctrl-C the child must not go on
            child.kill()
            child.wait()
    if answered.is_file():
        return Record.from_json(answered.read_text(encoding="utf-8"))
    if code == -signal.SIGKILL and _oom_kills() > kills:
        return run.without_result(cell, "oom", "killed by the system, which had no memory left")
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    tail = log.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL:]
    return run.without_result(cell, "failed", f"the measuring process {how}", tail)


def _oom_kills() -> int:
    """How many processes the kernel has killed for memory since it started."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text(encoding="utf-8").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _die_with_parent() -> None:
    with contextlib.suppress(AttributeError):  # Linux alone has it
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # never outlive the run: it would disturb the next


def _child(asked: Path, answered: Path) -> None:
    _die_with_parent()
    if os.getppid() == 1:
        sys.exit("the run that started this measurement has ended")
    record = _measure(Cell.from_dict(json.loads(asked.read_text(encoding="utf-8"))))
    rank = os.environ.get("RANK")  # torchrun's number of this process among several
    if rank in (None, "0"):
        write_atomically(answered, record.to_json())
    if rank is not None and not record.measured:  # so that torchrun stops the others
        sys.exit(record.traceback or record.error)


if __name__ == "__main__":
    _child(Path(sys.argv[1]), Path(sys.argv[2]))
