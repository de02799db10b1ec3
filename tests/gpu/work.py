"""Working through the queue: what is done, what there is time for, and what lies in the archive."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from bench import matrix
from bench.experiments import EXPERIMENTS
from bench.launch.process import Process
from bench.unfit import Unfit
from reports.records.cell import Cell
from reports.records.store import Store
from reports.views import goals
from reports.views.table import read
from rwkv_core.files import write_atomically
from tests.gpu.rehearsal import tiny
from tests.gpu.steps import Step

TRIES = 2  # of a cell or a command, over all calls
LEAST_S = 10  # no cell is started with less left
ARCHIVE_BYTES = 16 << 20
ENDED = 3  # exit code where something is left to do


class Queue:
    """The steps beside what the store of this device holds. ends: when the call has to be over, by time.monotonic."""

    def __init__(self, steps: Sequence[Step], results: Path, device: str, ends: float, rehearse: bool) -> None:
        self.steps = steps
        self.folder = results / f"gpu-{re.sub('[^a-z0-9]+', '-', device.lower()).strip('-')}"
        self.device, self.ends, self.rehearse = device, ends, rehearse
        self.store = Store(self.folder)
        records, damaged = self.store.read()
        self.records = {record.id: record for record in records}
        for warning in damaged.values():
            print(warning)
        self.journal = self.folder / "journal.jsonl"  # what was begun and how it ended
        self.began = time.monotonic()
        self.children: dict[Step, subprocess.Popen[bytes]] = {}  # commands that have been started

    def run(self) -> int:
        """Each step up to its bound, then what is left, last what has failed; until the time is over. The exit code."""
        with self.store.locked(), Process() as process, self._ended():
            steps = self.steps
            if self.rehearse:  # nothing is timed, so that commands may run beside the cells and are waited for last
                steps = sorted(steps, key=lambda step: bool(step.command))
                for step in steps:
                    if step.command and self.left(step) and not self.lacks(step):
                        self.children[step] = self._start(step)
            for tries, bounded in ((1, True), (1, False), (TRIES, False)):
                for step in steps:
                    ends = min(self.ends, time.monotonic() + step.bound_s) if bounded else self.ends
                    if self.lacks(step):
                        self._say(step, f"not here: {self.lacks(step)}") if bounded else None
                    elif (
                        self._command(step, tries, process) if step.command else self._cells(step, ends, tries, process)
                    ):
                        self.pack()
        return self._summary()

    @contextlib.contextmanager
    def _ended(self) -> Iterator[None]:
        """After whatever happens, no command goes on."""
        try:
            yield
        finally:
            for child in self.children.values():
                _kill_group(child)

    def show(self) -> int:
        """Print the queue; run nothing."""
        print(f"{'step':17} {'estimate':>8} {'bound':>6}  state, in {self.folder}")
        for step in self.steps:
            left, total = len(self.left(step)), len(self.names(step))
            share = round(step.estimate_s * left / total)
            state = f"not here: {self.lacks(step)}" if self.lacks(step) else f"{total - left} of {total} done"
            print(f"{step.name:17} {share:6} s {step.bound_s:4} s  {state}")
        return 0

    @functools.cache  # noqa: B019 - one queue a process
    def cells(self, step: Step) -> list[Cell]:
        planned = matrix.read(Path("configs") / step.matrix)
        return list(dict.fromkeys(tiny(cell, self.folder / "work") for cell in planned)) if self.rehearse else planned

    def names(self, step: Step) -> list[str]:
        """What of a step is begun and ended by itself, as the journal calls it."""
        return [self._command_name(step)] if step.command else [cell.id for cell in self.cells(step)]

    def left(self, step: Step, tries: int = TRIES) -> list[str]:
        """What is still to be done, apart from what has been tried often enough."""
        events = self._events()
        done = {
            name
            for name, noted in events.items()
            if "ok" in noted or noted.count("begun") - noted.count("cut") >= tries
        }
        enough = {r.id for r in self.records.values() if r.final or (self.rehearse and r.measured)}
        return [name for name in self.names(step) if name not in done | enough]

    def failed(self, step: Step) -> list[str]:
        """What has failed as often as it is tried."""
        given_up = set(self.names(step)) - set(self.left(step))
        bad = {record.id for record in self.records.values() if record.status == "failed"}
        bad |= {name for name, noted in self._events().items() if step.command and "ok" not in noted}
        return sorted(given_up & bad)

    def lacks(self, step: Step) -> str:
        """The module or program that a step needs and that is not here; empty where nothing is missing."""
        missing = [n for n in step.needs if not (shutil.which if n in step.prefix else importlib.util.find_spec)(n)]
        return missing[0] if missing else ""

    def _cells(self, step: Step, ends: float, tries: int, process: Process) -> bool:
        """Measure what is pending of a matrix while there is time; whether anything was measured."""
        wanted, measured = set(self.left(step, tries)), False
        unfit = Unfit(record for record in self.records.values() if record.status == "oom")
        for cell in self.cells(step):
            seconds = min(step.cell_s, ends - time.monotonic())
            if cell.id not in wanted:
                continue
            if seconds < LEAST_S:
                self._say(step, "its time is over")
                break
            if not measured and EXPERIMENTS[cell.experiment].timed and not self.rehearse:
                process.end()  # what is timed shares a process with no other step's cells
            measured = True
            self._note(cell.id, "begun")
            begun = time.monotonic()
            record = unfit.refusal(cell) or process.measure(cell, seconds)
            took = time.monotonic() - begun
            if record.status == "failed" and seconds < step.cell_s and took >= seconds:
                self._note(cell.id, "cut", took)
                break
            self.store.write(record)
            self.records[record.id] = record
            self._note(cell.id, record.status, took)
            if record.status == "oom":
                unfit.add(record)
            self._say(step, f"{record.status:4} {took:5.1f} s {cell.id} {record.error}")
        return measured

    def _command(self, step: Step, tries: int, process: Process) -> bool:
        """Run a module, if its bound fits; whether it was run. What it prints is kept in the store."""
        if not (names := self.left(step, tries)):
            return False
        if self.ends - time.monotonic() < step.bound_s:
            self._say(step, "it would not fit")
            return False
        if not self.rehearse:
            process.end()  # it may hold most of the GPU's memory
        self._note(names[0], "begun")
        begun = time.monotonic()
        child = self.children.pop(step, None) or self._start(step)
        try:
            code = child.wait(timeout=step.bound_s)
            status = "ok" if code == 0 else f"ended with exit code {code}"
        except subprocess.TimeoutExpired:
            status = f"not done after {step.bound_s} s"
        finally:  # nothing to do after an ordinary end
            _kill_group(child)
        took = time.monotonic() - begun
        self._note(names[0], status, took)
        lines = self._log(step).read_text(errors="replace").strip().splitlines() or [""]
        for line in [line for line in lines if line.startswith(("FAIL", "E "))][:20]:
            self._say(step, line)
        self._say(step, f"{status} {took:5.1f} s {lines[-1]}")
        return True

    def _start(self, step: Step) -> subprocess.Popen[bytes]:
        prefix, more = ((), step.rehearsal) if self.rehearse else (step.prefix, ())
        with self._log(step).open("wb") as output:
            return subprocess.Popen(
                [*prefix, sys.executable, "-u", "-m", *step.command, *more],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _log(self, step: Step) -> Path:
        return self.folder / f"{step.name}.txt"

    def _command_name(self, step: Step) -> str:
        """A name that changes with the device, the software and the step's sources."""
        paths = sorted({path for pattern in step.sources for path in Path().glob(pattern)})
        versions = [f"{name} {_version(name)}" for name in ("torch", "triton", "transformers")]
        parts = [self.device.encode(), *map(str.encode, (*versions, *step.command)), *(p.read_bytes() for p in paths)]
        return f"{step.name} {hashlib.sha256(b'|'.join(parts)).hexdigest()[:12]}"

    def _note(self, name: str, event: str, seconds: float | None = None) -> None:
        with self.journal.open("a") as file:
            took = {} if seconds is None else {"seconds": round(seconds, 1)}
            file.write(json.dumps({"name": name, "event": event, **took}) + "\n")

    def _events(self) -> dict[str, list[str]]:
        events: dict[str, list[str]] = {}
        for line in self.journal.read_text().splitlines() if self.journal.is_file() else []:
            entry = json.loads(line)
            events.setdefault(entry["name"], []).append(entry["event"])
        return events

    def _say(self, step: Step, what: str) -> None:
        print(f"{time.monotonic() - self.began:5.0f} s  {step.name}: {what}", flush=True)

    def pack(self) -> None:
        """The store as one archive, whole or not at all; of what is too large, the items of tasks are left out."""
        path = self.folder.with_suffix(".tgz")
        patterns = ("*", "*/*.json", "*/*.jsonl.gz")  # not what trainings keep
        files = (path for pattern in patterns for path in self.folder.glob(pattern))
        every = sorted(path for path in files if path.is_file() and not path.name.startswith("."))
        for left_out in ((), ("items of tasks",)):
            chosen = [p for p in every if not (left_out and p.name.endswith(".items.jsonl.gz"))]
            content = io.BytesIO()
            with tarfile.open(fileobj=content, mode="w:gz") as archive:
                for file in chosen:
                    archive.add(file, f"{self.folder.name}/{file.relative_to(self.folder)}")
            if content.tell() <= ARCHIVE_BYTES:
                write_atomically(path, content.getvalue())
                if left_out:
                    print(f"{path}: without the {left_out[0]}, which would make it larger than 16 MiB")
                return
        print(f"{path}: not written, it would be {content.tell() / 2**20:.1f} MiB; take {self.folder} instead")

    def _summary(self) -> int:
        here = [step for step in self.steps if not self.lacks(step)]
        left = sum(len(self.left(step)) for step in here)
        failed = [name for step in here for name in self.failed(step)]
        reached = goals.table(read(self.records.values()))
        if reached is not None:
            print(reached.frame.to_string(index=False), reached.note, sep="\n")
        for name in failed:
            print(f"failed: {name}")
        print(
            f"{len(self.records)} records in {self.folder}, {len(failed)} failed, {left} to go"
            + ": the same command goes on" * (left > 0)
        )
        return ENDED if left else int(bool(failed))


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    """End a child and all that it has started in its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"
