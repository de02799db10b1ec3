"""The Triton kernels beside the float64 reference: `python -m tests.gpu.proofs essential|rest|few [--rehearse]`.

Several processes prove side by side, since compiling takes most of the time; what is measured later finds the kernels
compiled. Exits with 1 where a case is wrong.
"""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed

import torch

from rwkv_core.wkv.wkv4 import wkv4
from tests.checks.wkv_cases import Case, cases, check, make

WIDTHS = (768, 1024, 2048, 4096, 5120)  # of the models that are measured
MOST_PROCESSES = 12
SPARED_CORES = 2


def essential() -> list[Case]:
    """The widths of models, at once and in chunks; then what is normal at odd sizes."""
    wide = itertools.product(WIDTHS, (torch.float32, torch.bfloat16), ((1, 300), (2, 40)))
    chosen = [Case("normal", *size, width, dtype=dtype) for width, dtype, size in wide]
    return chosen + [case for case in cases() if case.kind == "normal"]


def rest() -> list[Case]:
    """Extreme keys and decays; states and rows of different length at a model's width."""
    chosen = [case for case in cases() if case.kind != "normal"]
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        chosen.append(Case("normal", 3, 300, 768, state=True, ragged=True, dtype=dtype))
        chosen.append(Case("normal", 3, 40, 768, state=True, ragged=True, strided=True, dtype=dtype))
    return chosen


def few() -> list[Case]:
    """Few tokens and channels, for a sanitizer, under which everything is slow."""
    return [case for case in cases(small=True) if case.tokens < 300]


def prove(case: Case, device: str) -> str:
    """One line: the largest errors of a case, or what is wrong with it."""
    try:
        errors = check("triton", case, device)
        w, u, k, v = make(case, device)
        with torch.no_grad():
            y, _ = wkv4(w, u, k, v, impl="triton")
        saved, _ = wkv4(w.requires_grad_(), u, k, v, impl="triton")
        assert torch.equal(y, saved), f"triton {case}: y is another where no gradients are wanted"
    except Exception as error:  # whatever it is, the other cases are proved
        return f"FAIL {case}: {type(error).__name__}: {error}"
    return f"ok   {case}: " + ", ".join(f"{name} {value:.0e}" for name, value in errors.items())


def lines(chosen: Iterable[Case], device: str, processes: int) -> Iterator[str]:
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
        chosen = [Case("normal", 2, 3, 2, state=True, ragged=True, dtype=case.dtype) for case in chosen[:1]]
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
