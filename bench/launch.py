"""Where cells run: here, side by side, alone in a fresh process, or each in several processes together.

`python -m bench.launch` is the fresh process: cells as lines of JSON on its stdin, or as its arguments, records as
lines on its stdout.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import json
import math
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch

from bench import run
from bench.experiments import EXPERIMENTS
from bench.matrix import Cell
from reports.records.record import Record
from rwkv_core.errors import BadInput

ROOT = Path(__file__).resolve().parents[1]
PR_SET_PDEATHSIG = 1  # linux/prctl.h
ENDING_S = 10  # for a process that has closed its stdout to end by itself
LOG_TAIL = 4000  # characters of a dead process's output that its record keeps


def here(cells: Sequence[Cell]) -> Iterator[Record]:
    """In this process, the model loaded once for all of them."""
    yield from run.measure(cells)


def alone(cells: Sequence[Cell]) -> Iterator[Record]:
    """Each cell in a process of its own; this one sleeps meanwhile. A killed process is a record too."""
    for cell in cells:
        with Process() as process:
            yield process.measure(cell)


def together(cells: Sequence[Cell]) -> Iterator[Record]:
    """Each cell in as many processes as it says, one a GPU, by torchrun; training shares the work."""
    for cell in cells:
        count = f"--nproc-per-node={cell.params[EXPERIMENTS[cell.experiment].processes]}"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", count, "-m", "bench.launch"]
        with Process([*command, _packed(cell)]) as process:  # as an argument: they cannot share one stdin
            yield process.measure(cell)


def environment() -> dict[str, str]:
    """What a fresh process is started with. Threads that wait for each other sleep instead of spinning, unless the user
    says otherwise, for all families alike: a spinning thread keeps the one it waits for from its core.

    Two rounds with 2 threads on 2 cores of an AMD EPYC, ms a token, spinning and sleeping: RWKV-4 169M 52 and 51 on the
    quiet machine, 62 and 50 beside a busy loop; Pythia 160M 54 and 56, 120 and 53. GOMP_SPINCOUNT=1000 did the same.
    """
    return {"OMP_WAIT_POLICY": "passive", **os.environ}


class Process:
    """A fresh process that measures one cell after another while this one sleeps. After one in which a cell failed or
    found no memory comes a new one, since a device may be broken then, or hold what is lost.
    """

    def __init__(self, command: Sequence[str] = (sys.executable, "-m", "bench.launch")) -> None:
        self._command = command
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Process:
        self._log = tempfile.TemporaryFile(prefix="rwkv-bench-")
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self._log.close()

    def measure(self, cell: Cell, seconds: float = math.inf) -> Record:
        """The cell's record; a failed one where the process dies, or is ended because it takes longer than `seconds`
        (its start included).
        """
        kills = _oom_kills()
        deadline = time.monotonic() + seconds
        if self._child is None:
            self._start()
        record = None
        try:
            record = self._answer(cell, deadline)
        finally:  # after Ctrl-C, too, the child must not go on
            if record is None or record.status in ("failed", "oom"):
                code = self.end()
        if record is not None:
            return record
        tail = self._tail()
        if time.monotonic() >= deadline:
            return run.without_result(cell, "failed", f"ended after {seconds:.0f} s, the most that it may take", tail)
        if code == -signal.SIGKILL and _oom_kills() > kills:
            return run.without_result(cell, "oom", "killed by the system, which had no memory left")
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return run.without_result(cell, "failed", f"the measuring process {how}", tail)

    def end(self) -> int:
        """End the process, if there is one, and all that it has started; its exit code, SIGKILL's if it was alive."""
        child, self._child = self._child, None
        if child is None:
            return 0
        with contextlib.suppress(subprocess.TimeoutExpired):
            if child.stdout is not None and select.select([child.stdout], [], [], 0)[0]:  # it has ended, or is about to
                child.wait(ENDING_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        code = child.wait()
        for pipe in (child.stdin, child.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]
        return code

    def _start(self) -> None:
        self._log.seek(0)
        self._log.truncate()
        self._child = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the child
            preexec_fn=_die_with_parent,
        )

    def _answer(self, cell: Cell, deadline: float) -> Record | None:
        """Send the cell and read its record; None where the process ends first, or the time does."""
        assert self._child and self._child.stdin and self._child.stdout
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.write(_packed(cell).encode() + b"\n")
            self._child.stdin.flush()
        text = b""
        while not text.endswith(b"\n"):
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._child.stdout], [], [], None if left == math.inf else max(0.0, left))
            part = os.read(self._child.stdout.fileno(), 1 << 20) if ready else b""
            if not part:
                return None
            text += part
        return Record.from_json(json.loads(text))

    def _tail(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-LOG_TAIL:]


def beside(cells: Sequence[Cell], jobs: int) -> Iterator[Record]:
    """Cells in `jobs` processes side by side, each with its share of the cores and a model loaded for each cell; the
    records as they end. Raises BadInput where a process is killed.
    """
    threads = max(1, run.threads() // jobs)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _enter_pool, (threads,)) as pool:
        try:
            submitted = [pool.submit(_measure, cell) for cell in cells]
            pool.submit(int)  # wakes the pool's watcher: it was last told before the last process was there
            for answered in as_completed(submitted):
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


def _packed(cell: Cell) -> str:
    """A cell as one line."""
    return json.dumps({**cell.to_dict(), "paths": dict(cell.paths)})


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


def _child(lines: Iterable[str]) -> None:
    """Measure the cells of these lines; records go to stdout, and what is printed to stderr."""
    _die_with_parent()
    if os.getppid() == 1:
        sys.exit("the run that started this measurement has ended")
    rank = os.environ.get("RANK")  # torchrun's number of this process among several
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        for record in _one_by_one(Cell.from_dict(json.loads(line)) for line in lines):
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
    _child(sys.argv[1:] or sys.stdin)
