"""What only a GPU can show, in one command that needs no installation: `python -m tests.gpu`.

Proves the Triton kernels right on the device, then measures and writes records to results/gpu-*. A call ends after
about eight minutes at the latest; the next one goes on where it stopped. Exits with 0 when all is done, with 3 when
something is left to do, with 1 where something is wrong.
"""

from __future__ import annotations

import hashlib
import os
import shutil
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
CALL_S = 480.0  # no cell is started later than this
LONGEST_CELL_S = 300.0
PROVED = Path("results/gpu-proved")
SANITIZER = ["compute-sanitizer", "--tool", "memcheck", "--error-exitcode", "9", "--kernel-name-exclude", "regex=at::"]


def main() -> int:
    started = time.monotonic()
    if not torch.cuda.is_available():
        print("torch sees no CUDA device here; nothing was run")
        return 1
    if not prove():
        return 1
    records: list[Record] = []
    left = 0
    for path in MATRICES:
        chosen = matrix.choose(Path(path), Path("results") / f"gpu-{Path(path).stem}", "")
        with chosen.store.locked():
            while chosen.pending and time.monotonic() - started < CALL_S - LONGEST_CELL_S * (path != MATRICES[0]):
                matrix.execute(chosen, limit=1)
                chosen = matrix.choose(Path(path), chosen.store.folder, "")
        left += len(chosen.pending)
        records += chosen.records.values()
    goals = races.targets(rows.from_records(records))
    if goals is not None:
        print(goals.frame.to_string(index=False), goals.note, sep="\n")
    print(f"{len(records)} records, {left} cells to go" + (": the same command goes on" if left else ""))
    return 3 if left else 0


def prove() -> bool:
    """Every case on this device, once for each state of the kernels."""
    sources = sorted(Path("rwkv_core/wkv").glob("*.py"))
    text = torch.cuda.get_device_name() + "".join(path.read_text() for path in sources)
    fingerprint = hashlib.sha256(text.encode()).hexdigest()
    if PROVED.is_file() and PROVED.read_text().startswith(fingerprint):
        print(PROVED.read_text().split("\n", 1)[1], end="")
        return True
    lines, wrong = [], 0
    for case in cases():
        try:
            errors = check("triton", case, "cuda")
            lines.append(f"ok   {case}: " + ", ".join(f"{k} {v:.0e}" for k, v in errors.items()))
        except AssertionError as error:
            wrong += 1
            lines.append(f"FAIL {error}")
        print(lines[-1], flush=True)
    if shutil.which(SANITIZER[0]) and not wrong:
        command = [*SANITIZER, sys.executable, "-m", "tests.gpu", "--small"]
        found = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        )
        wrong += found.returncode != 0
        lines.append(f"compute-sanitizer: {'clean' if found.returncode == 0 else found.stdout[-2000:]}")
        print(lines[-1], flush=True)
    if not wrong:
        write_atomically(PROVED, "\n".join([fingerprint, *lines, ""]))
    return not wrong


def small() -> None:
    """Few tokens and channels, for the sanitizer, under which everything is slow."""
    for case in cases(small=True):
        if case.tokens < 300:
            check("triton", case, "cuda")


if __name__ == "__main__":
    try:
        sys.exit(small() if "--small" in sys.argv else main())
    except BadInput as error:
        sys.exit(f"gpu: {error}")
