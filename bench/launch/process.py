"""A fresh process that measures cells, and the two launchers that start one."""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import run
from bench.experiments import EXPERIMENTS
from reports.records.cell import Cell
from reports.records.record import Record
from rwkv_core.models import ROOT

COMMAND = (sys.executable, "-m", "bench.launch")
PR_SET_PDEATHSIG = 1  # linux/prctl.h
ENDING_S = 10  # for a process that has closed its stdout to end by itself
LOG_TAIL = 4000  # characters of a dead process's output that its record keeps


def alone(cells: Sequence[Cell], jobs: int) -> Iterator[Record]:
    """Each cell in a process of its own; this one sleeps meanwhile. A killed process is a record too."""
    for cell in cells:
        with Process() as process:
            yield process.measure(cell)


def together(cells: Sequence[Cell], jobs: int) -> Iterator[Record]:
    """Each cell in as many processes as it says, one a GPU, by torchrun; training shares the work."""
    for cell in cells:
        count = f"--nproc-per-node={cell.params[EXPERIMENTS[cell.experiment].processes]}"
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", count]
        with Process([*torchrun, *COMMAND[1:], packed(cell)]) as process:  # as an argument: they cannot share one stdin
            yield process.measure(cell)


def environment() -> dict[str, str]:
    """What a fresh process is started with. Threads of OpenMP that wait for each other spin for some microseconds and
    then sleep, unless the user says otherwise, for all families alike. One that spins for long keeps the one that it
    waits for from its core, where there is a neighbour; one that sleeps at once is late for the next of many small
    operations.

    2 threads on 2 cores of an AMD EPYC, torch 2.13, medians of 3, ms; sleeping at once, this, spinning: a token of
    Pythia 160M 45.3, 45.2, 48.9, beside a busy loop 49.2, 46.8, 100.6; of RWKV-4 169M 42.7, 42.8, 55.2, beside it 49.5,
    45.1, 72.0; a prompt of 1,024 tokens of RWKV-4 169M in transformers 4960, 1840, 1830, in pip rwkv 3760, 1660, 1370.
    """
    short = {} if "OMP_WAIT_POLICY" in os.environ else {"GOMP_SPINCOUNT": "1000"}
    return {**short, **os.environ}


class Process:
    """A fresh process that measures one cell after another while this one sleeps. After one in which a cell failed or
    found no memory comes a new one, since a device may be broken then, or hold what is lost.
    """

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
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
        with _ctrl_c_waits():
            self._child = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the child
                preexec_fn=die_with_parent,
            )

    def _answer(self, cell: Cell, deadline: float) -> Record | None:
        """Send the cell and read its record; None where the process ends first, or the time does."""
        assert self._child and self._child.stdin and self._child.stdout
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.write(packed(cell).encode() + b"\n")
            self._child.stdin.flush()
        text = b""
        while not text.endswith(b"\n"):
            remaining = deadline - time.monotonic()
            ready, _, _ = select.select(
                [self._child.stdout], [], [], None if remaining == math.inf else max(0.0, remaining)
            )
            part = os.read(self._child.stdout.fileno(), 1 << 20) if ready else b""
            if not part:
                return None
            text += part
        return Record.from_json(json.loads(text))

    def _tail(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-LOG_TAIL:]


def packed(cell: Cell) -> str:
    """A cell as one line, for the process that measures it."""
    return json.dumps({**cell.to_json(), "paths": dict(cell.paths)})


def unpacked(line: str) -> Cell:
    """The cell of such a line."""
    return Cell.from_json(json.loads(line))


def _oom_kills() -> int:
    """How many processes the kernel has killed for memory since it started."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text(encoding="utf-8").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


@contextlib.contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Hold Ctrl-C back while a child is started. Packages hook into fork, and Python drops what is raised in a hook;
    and a child whose start was interrupted would be ended by nobody.
    """
    if threading.current_thread() is not threading.main_thread():  # Ctrl-C is raised in the main thread alone
        yield
        return
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        signal.raise_signal(signal.SIGINT)


def die_with_parent() -> None:
    """End this process when the one that started it ends, however that may be."""
    with contextlib.suppress(AttributeError):  # Linux alone has it
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # never outlive the run: it would disturb the next
