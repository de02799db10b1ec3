"""The queue: what is to be done on a GPU, most worth having first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SANITIZER = ("compute-sanitizer", "--tool", "memcheck", "--error-exitcode", "9")


@dataclass(frozen=True)
class Step:
    """Cells of a matrix in configs/, or a Python module that is run.

    estimate_s: of all of it on an H100, by reckoning. bound_s: the most that it may take before what comes after has
    had its turn, and for a command altogether. cell_s: the most that one cell may take. needs: modules and programs
    without which it cannot run. sources: a command is run again when these files have changed. rehearsal: more
    arguments of a command in a rehearsal; prefix: the program that runs Python, except in a rehearsal.
    """

    name: str
    estimate_s: int
    bound_s: int
    matrix: str = ""
    cell_s: int = 60
    command: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    rehearsal: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()


def marked() -> tuple[str, ...]:
    """The files of tests with the mark `gpu`; others need not be importable there."""
    return tuple(sorted(str(path) for path in Path("tests").rglob("test_*.py") if "mark.gpu" in path.read_text()))


KERNELS = ("rwkv_core/wkv/**/*.py", "tests/checks/*_cases.py", "tests/checks/*_suite*.py", "tests/gpu/proofs.py")
STEPS = (
    Step("proofs", 30, 60, command=("tests.gpu.proofs", "essential"), sources=KERNELS, rehearsal=("--rehearse",)),
    Step("kernels", 110, 140, "gpu/kernels.yaml", cell_s=60),
    Step("contexts", 150, 200, "gpu/contexts.yaml", cell_s=60),
    Step("batches", 70, 90, "gpu/batches.yaml", cell_s=40),
    Step("figures", 200, 60, "gpu/figures.yaml", cell_s=60),
    Step(
        "tests",
        40,
        90,
        command=("pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *marked()),
        needs=("pytest",),
        sources=("rwkv_core/**/*.py", "bench/**/*.py", "evals/zeroshot/*.py", *marked()),
        rehearsal=("--collect-only",),
    ),
    Step("more-proofs", 30, 90, command=("tests.gpu.proofs", "rest"), sources=KERNELS, rehearsal=("--rehearse",)),
    Step("zeroshot", 90, 90, "gpu/zeroshot.yaml", cell_s=60, needs=("lm_eval", "datasets")),
    Step("sweep", 120, 90, "gpu/sweep.yaml", cell_s=60),
    Step("runtimes", 60, 60, "gpu/runtimes.yaml", cell_s=30, needs=("rwkv",)),
    Step("training", 80, 90, "gpu/training.yaml", cell_s=60, needs=("accelerate",)),
    Step(
        "sanitizer",
        60,
        120,
        command=("tests.gpu.proofs", "few"),
        needs=(SANITIZER[0],),
        sources=KERNELS,
        rehearsal=("--rehearse",),
        prefix=SANITIZER,
    ),
    Step("inference", 4000, 600, "inference.yaml", cell_s=240),
)
