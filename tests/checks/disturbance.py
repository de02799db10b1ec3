"""Whether disturbed cells are found and quiet ones left alone, on this machine: `python -m tests.checks.disturbance`.

Cells of the experiment inference, as `run` measures them but for two things: nothing is measured again (what is counted
is whether a disturbance is seen), and the untimed part after the repeats is left out. A fresh process loads a model
and measures all cells of one number of threads, with neighbours that start before a cell and end behind it: loading
takes longer than a cell, and as each cell calibrates anew, nothing but the weights goes from one to the next. Cells
are written to results/disturbance-check/ as they end; the same command goes on there. The machine must be left alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.launch.process import environment

FOLDER = Path("results/disturbance-check")
MODELS, THREADS = ("rwkv4-169m", "pythia-160m"), (1, 2)
NEIGHBOURS = {"none": [], "one busy loop": ["loop"], "two busy loops": ["loop", "loop"], "one that copies": ["copy"]}
NEW_TOKENS = 12
SETTLE_S = 0.3  # until a neighbour is at work
FOUND, FALSE_ALARMS = 0.95, 0.05  # at least and at most
COPY_BYTES = 64 << 20
FIGURES = {  # medians over the cells of the largest of each cell's repeats
    "waited, %": ("worst_waited", 100),
    "switches/s": ("switches_per_s", 1),
    "others, cores": ("others_cores", 1),
    "steal, %": ("steal", 100),
    "spin, ms": ("spin_s", 1e3),
    "copy, ms": ("copy_s", 1e3),
}


def loop() -> None:
    while True:
        pass


def copy() -> None:
    source, target = bytearray(b"\x5a") * COPY_BYTES, bytearray(COPY_BYTES)
    while True:
        target[:] = source


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=60, help="at least so many quiet ones, and as many disturbed")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        measure(options.child[0], int(options.child[1]), int(options.child[2]))
        return 0
    each = -(-options.cells // (len(MODELS) * len(THREADS) * (len(NEIGHBOURS) - 1)))  # cells of one disturbed condition
    for model, threads in itertools.product(MODELS, THREADS):
        subprocess.run(
            [sys.executable, "-m", "tests.checks.disturbance", "--child", model, str(threads), str(each)],
            env=environment(),
            check=True,
        )
    return report(list(cells()))


def measure(name: str, threads: int, each: int) -> None:
    """The cells that are not there yet: the quiet ones between the others, so that none stands for a time of day."""
    import torch

    from bench.instruments import disturbance
    from bench.speed import inference
    from rwkv_core import load, models

    disturbance.AGAIN = 0
    inference._untimed = lambda *_: ({}, [])  # type: ignore[assignment]
    order = [pair for neighbours in list(NEIGHBOURS)[1:] for pair in ("none", neighbours)] * each
    path = FOLDER / f"{name}-{threads}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    done = len(path.read_text().splitlines()) if path.is_file() else 0
    if done >= len(order):
        return
    torch.set_num_threads(threads)
    model = load.load(models.find(name, weights="random:0"), device="cpu", dtype="float32")
    for neighbours in order[done:]:
        disturbance.calibration.cache_clear()
        processes = [
            multiprocessing.get_context("spawn").Process(target={"loop": loop, "copy": copy}[kind], daemon=True)
            for kind in NEIGHBOURS[neighbours]
        ]
        for process in processes:
            process.start()
        try:
            time.sleep(SETTLE_S if processes else 0.0)
            _, samples = inference.run(model, device="cpu", new_tokens=NEW_TOKENS)
        finally:
            for process in processes:
                process.kill()
                process.join()
        seconds = [run[-1] - run[0] for run in samples["token_seconds"]]
        cell = {
            "model": name,
            "threads": threads,
            "neighbours": neighbours,
            "found": disturbance.verdict(samples),
            "ms": 1e3 * statistics.median(seconds) / (NEW_TOKENS - 1),
            **samples["disturbance"],
        }
        with path.open("a") as file:
            file.write(json.dumps(cell) + "\n")
        print(f"{name}, {threads} threads, {neighbours}: {cell['ms']:.1f} ms; {cell['found'] or 'quiet'}", flush=True)


def cells() -> Iterator[dict[str, Any]]:
    for path in sorted(FOLDER.glob("*.jsonl")):
        yield from map(json.loads, path.read_text().splitlines())


def report(measured: list[dict[str, Any]]) -> int:
    """Print the table and the two shares; 1 where one of them is missed."""
    head = ["neighbours", "threads", "cells", "found", *FIGURES, *(f"{model}, ms a token" for model in MODELS)]
    print("| " + " | ".join(head) + " |", "|" + "---|" * len(head), sep="\n")
    for neighbours, threads in itertools.product(NEIGHBOURS, THREADS):
        part = [cell for cell in measured if (cell["neighbours"], cell["threads"]) == (neighbours, threads)]
        line = [neighbours, str(threads), str(len(part)), str(sum(bool(cell["found"]) for cell in part))]
        for figure, scale in FIGURES.values():
            largest = [max(one[figure] or 0.0 for one in cell["intervals"]) for cell in part]
            line.append(f"{scale * statistics.median(largest):.2f}")
        for model in MODELS:
            line.append(f"{statistics.median(cell['ms'] for cell in part if cell['model'] == model):.1f}")
        print("| " + " | ".join(line) + " |")
    quiet = [bool(cell["found"]) for cell in measured if cell["neighbours"] == "none"]
    disturbed = [bool(cell["found"]) for cell in measured if cell["neighbours"] != "none"]
    found, alarms = statistics.fmean(disturbed), statistics.fmean(quiet)
    print(
        f"found: {found:.1%} of {len(disturbed)} disturbed cells (at least {FOUND:.0%} wanted); "
        f"false alarms: {alarms:.1%} of {len(quiet)} quiet ones (at most {FALSE_ALARMS:.0%})"
    )
    return int(found < FOUND or alarms > FALSE_ALARMS)


if __name__ == "__main__":
    sys.exit(main())
