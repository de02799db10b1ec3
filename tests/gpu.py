"""What only a GPU can show, in one command that needs no installation: `python -m tests.gpu`.

Proves the Triton kernels right on the device, then measures and writes records to results/gpu-*. A call ends after
about eight minutes at the latest; the next one goes on where it stopped. Exits with 0 when all is done, with 3 when
something is left to do, with 1 where something is wrong.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from bench import matrix
from reports import races, rows
from reports.record import Record
from reports.store import write_atomically
from rwkv_core.spec import BadInput
from tests.wkv_cases import cases, check

MATRICES = ("configs/kernels-gpu.yaml", "configs/inference.yaml")
LAST_START_S = 400.0  # no cell is started later in a call
ENDS_S = 520  # and none goes on for longer
TRIES = 2  # of a cell, over all calls
PROVED, TRIED = Path("results/gpu-proved"), Path("results/gpu-tried")
SANITIZER_S = 120
FOUND = 9  # the sanitizer's exit status where it found something
SANITIZER = ["compute-sanitizer", "--tool", "memcheck", "--error-exitcode", str(FOUND)]


def main() -> int:
    if not torch.cuda.is_available():
        print("torch sees no CUDA device here; nothing was run")
        return 1
    signal.signal(signal.SIGALRM, _stop)
    signal.alarm(ENDS_S)
    started = time.monotonic()
    if not prove():
        return 1
    records: list[Record] = []
    left = failed = 0
    for path in MATRICES:
        chosen = measure(Path(path), started)
        records += chosen.records.values()
        given_up = sum(tries(cell.id) >= TRIES for cell in chosen.pending)
        failed += given_up
        left += len(chosen.pending) - given_up
    goals = races.targets(rows.from_records(records))
    if goals is not None:
        print(goals.frame.to_string(index=False), goals.note, sep="\n")
    print(
        f"{len(records)} records, {failed} cells failed, {left} to go" + (": the same command goes on" if left else "")
    )
    return 3 if left else int(failed > 0)


def measure(path: Path, started: float) -> matrix.Chosen:
    """One cell after another while there is time; one that has twice failed, or not ended, is left alone."""
    chosen = matrix.choose(path, Path("results") / f"gpu-{path.stem}", "")
    with chosen.store.locked():
        while time.monotonic() - started < LAST_START_S:
            wanted = [cell for cell in chosen.pending if tries(cell.id) < TRIES]
            if not wanted:
                break
            cell = min(wanted, key=lambda cell: tries(cell.id))
            with TRIED.open("a") as file:
                file.write(cell.id + "\n")
            matrix.execute(matrix.choose(path, chosen.store.folder, cell.id))
            chosen = matrix.choose(path, chosen.store.folder, "")
    return chosen


def tries(cell: str) -> int:
    """How often a cell has been started."""
    return TRIED.read_text().splitlines().count(cell) if TRIED.is_file() else 0


def _stop(*_: object) -> None:
    raise TimeoutError("the call has had its time; the same command goes on")


def prove() -> bool:
    """Every case on this device, once for each state of the kernels, the cases and the software."""
    sources = [*sorted(Path("rwkv_core/wkv").glob("*.py")), Path("tests/wkv_cases.py")]
    versions = f"{torch.cuda.get_device_name()} {torch.__version__} {importlib.metadata.version('triton')}\n"
    fingerprint = hashlib.sha256((versions + "".join(path.read_text() for path in sources)).encode()).hexdigest()
    if PROVED.is_file() and PROVED.read_text().startswith(fingerprint):
        print(PROVED.read_text().split("\n", 1)[1], end="")
        return True
    lines, wrong = [f"on {versions.strip()}"], 0
    for case in cases():
        try:
            errors = check("triton", case, "cuda")
            lines.append(f"ok   {case}: " + ", ".join(f"{k} {v:.0e}" for k, v in errors.items()))
        except AssertionError as error:
            wrong += 1
            lines.append(f"FAIL {error}")
        print(lines[-1], flush=True)
    lines.append(f"compute-sanitizer: {sanitize()}")
    print(lines[-1], flush=True)
    wrong += "FAIL" in lines[-1]
    if not wrong:
        write_atomically(PROVED, "\n".join([fingerprint, *lines, ""]))
    return not wrong


def sanitize() -> str:
    """What compute-sanitizer says of the small cases, or why it says nothing."""
    if not shutil.which(SANITIZER[0]):
        return "not installed"
    command = [*SANITIZER, sys.executable, "-m", "tests.gpu", "--small"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=SANITIZER_S)
    except subprocess.TimeoutExpired:
        return f"not done in {SANITIZER_S} s"
    if found.returncode == FOUND:
        return f"FAIL {found.stdout[-3000:]}"
    return "clean" if found.returncode == 0 else f"could not run: {(found.stderr or found.stdout)[-500:]}"


def small() -> None:
    """Few tokens and channels, for the sanitizer, under which everything is slow."""
    for case in cases(small=True):
        if case.tokens < 300:
            check("triton", case, "cuda")


if __name__ == "__main__":
    try:
        sys.exit(small() if "--small" in sys.argv else main())
    except TimeoutError as error:
        print(error)
        sys.exit(3)
    except BadInput as error:
        sys.exit(f"gpu: {error}")
