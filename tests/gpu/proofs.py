"""Kernels for GPUs beside the float64 reference: `python -m tests.gpu.proofs essential|rest|few [--rehearse]`.

Several processes prove side by side, since compiling takes most of the time; what is measured later finds the kernels
compiled. Exits with 1 where a case is wrong.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed

import torch

from rwkv_core.wkv import OPERATORS
from tests.checks.wkv_cases import CASES, check
from tests.checks.wkv_suite import Case

WIDTHS = (768, 1024, 2048, 4096, 5120)  # of the models that are measured
MATRIX_STATES = ("wkv6", "wkv7")
MOST_PROCESSES = 12
SPARED_CORES = 2


Proof = tuple[str, str, Case]  # operator, implementation, input


def essential() -> list[Proof]:
    """The widths of models, at once and in chunks; then what is normal at odd sizes."""
    wide = itertools.product(WIDTHS, (torch.float32, torch.bfloat16), ((1, 300), (2, 40)))
    chosen = [("wkv4", "triton", Case("normal", *size, width, dtype=dtype)) for width, dtype, size in wide]
    for name in MATRIX_STATES:
        for dtype in (torch.float32, torch.bfloat16):
            chosen.append((name, "triton", Case("normal", 2, 300, 64, state=True, ragged=True, dtype=dtype, heads=12)))
    return chosen + [(n, "triton", case) for n, suite in CASES.items() for case in suite.cases(False) if _normal(case)]


def rest() -> list[Proof]:
    """Extreme keys and decays; states and rows of different length at a model's width; fla's, where it is installed."""
    chosen = [(n, "triton", case) for n, suite in CASES.items() for case in suite.cases(False) if not _normal(case)]
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        chosen.append(("wkv4", "triton", Case("normal", 3, 300, 768, state=True, ragged=True, dtype=dtype)))
        chosen.append(
            ("wkv4", "triton", Case("normal", 3, 40, 768, state=True, ragged=True, strided=True, dtype=dtype))
        )
    if importlib.util.find_spec("fla") is not None:
        for name in MATRIX_STATES:
            chosen.append((name, "fla", Case("normal", 2, 300, 64, state=True, dtype=torch.bfloat16, heads=12)))
            chosen += [(name, "fla", case) for case in CASES[name].cases(False) if case.channels % 16 == 0]
    return chosen


def few() -> list[Proof]:
    """Few tokens and channels, for a sanitizer, under which everything is slow."""
    return [(n, "triton", case) for n, suite in CASES.items() for case in suite.cases(True)]


def _normal(case: Case) -> bool:
    return case.kind == "normal"


def prove(proof: Proof, device: str) -> str:
    """One line: the largest errors of a case, or what is wrong with it."""
    name, impl, case = proof
    try:
        errors = check(name, impl, case, device)
        if OPERATORS[name].implementations[impl].gradients:
            inputs, call = CASES[name].make(case, device), CASES[name].call
            with torch.no_grad():
                y, _ = call(inputs, {}, None, impl)
            saved, _ = call({key: x.detach().requires_grad_() for key, x in inputs.items()}, {}, None, impl)
            assert torch.equal(y, saved), f"{impl} {case}: y is another where no gradients are wanted"
    except Exception as error:  # whatever it is, the other cases are proved
        return f"FAIL {name} {impl} {case}: {type(error).__name__}: {error}"
    return f"ok   {name} {impl} {case}: " + ", ".join(f"{key} {value:.0e}" for key, value in errors.items())


def lines(chosen: Iterable[Proof], device: str, processes: int) -> Iterator[str]:
    """The lines of all cases as they come, from so many processes."""
    if processes <= 1:
        yield from (prove(case, device) for case in chosen)
        return
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        for done in as_completed([pool.submit(prove, case, device) for case in chosen]):
            yield done.result()


def main(which: str, rehearse: bool) -> int:
    chosen = {"essential": essential, "rest": rest, "few": few}[which]()
    device, cores = ("cpu", 1) if rehearse else ("cuda", len(os.sched_getaffinity(0)) - SPARED_CORES)
    if rehearse:
        chosen = [
            (n, "triton", Case("normal", 2, 3, 2, state=True, ragged=True, heads=int(n in MATRIX_STATES)))
            for n in CASES
        ]
    processes = 1 if which == "few" else min(MOST_PROCESSES, cores, len(chosen))
    wrong = 0
    say = functools.partial(print, flush=True)
    say(f"{len(chosen)} cases on {torch.cuda.get_device_name() if device == 'cuda' else 'the CPU, interpreted'}")
    for line in lines(chosen, device, processes):
        wrong += line.startswith("FAIL")
        say(line)
    say(f"{len(chosen) - wrong} of {len(chosen)} cases are right")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], "--rehearse" in sys.argv))
