"""A process that measures several cells: one start for all, a new one after a death, an end to what hangs."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench import matrix
from bench.experiments import EXPERIMENTS
from bench.launch import LAUNCHERS, launcher_of, process
from reports.records.cell import Cell
from rwkv_core.models import ROOT

MATRIX = """
runs:
  - {experiment: inference, model: recall-rwkv4, weights: random:0, prompt_tokens: 4, new_tokens: [4, 5]}
  - {experiment: kernels, model: pythia-14m, weights: random:0, tokens: 2, rounds: 3}
"""


def test_cells_share_a_process_until_it_dies_or_a_cell_takes_too_long(tmp_path: Path) -> None:
    path = tmp_path / "matrix.yaml"
    path.write_text(MATRIX)
    first, second, without = matrix.read(path)
    with process.Process() as fresh:
        records = [fresh.measure(cell, 120) for cell in (first, second, without)]
        assert [record.measured for record in records] == [True, True, False] and records[2].status == "unsupported"
        assert [record.id for record in records] == [first.id, second.id, without.id]
        child = fresh._child
        assert child is not None and child.poll() is None, "one process for all of them, other models and findings too"

        child.kill()
        record = fresh.measure(first)
        assert record.status == "failed" and "was killed by SIGKILL" in record.error
        assert fresh.measure(second, 120).measured and fresh._child is not child

        child = fresh._child
        record = fresh.measure(first, 0.001)
        assert record.status == "failed" and "ended after" in record.error
        assert fresh._child is None and child is not None and child.poll() == -signal.SIGKILL
        fresh.measure(first, 120)
        child = fresh._child
    assert child is not None and child.poll() is not None, "none goes on afterwards"
    assert {record.provenance["waits"] for record in records if record.measured} == {"GOMP_SPINCOUNT=1000"}


CTRL_C_IN_A_FORK = """
import os, signal, sys
from bench.launch.process import Process

signal.signal(signal.SIGINT, signal.default_int_handler)
os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGINT))
with Process([sys.executable, "-c", "input()"]) as process:
    try:
        process.measure(None)
    except KeyboardInterrupt:
        print("interrupted", process._child.poll() is None)
print("ended", process._child)
"""


def test_ctrl_c_while_a_child_is_started_is_not_lost() -> None:
    ran = subprocess.run([sys.executable, "-c", CTRL_C_IN_A_FORK], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.stderr) == ("interrupted True\nended None\n", "")


EACH_ONCE = """
runs:
  - {experiment: inference, model: pythia-14m, weights: random:0}
  - {experiment: recall, model: recall-rwkv4, weights: "fresh:0", task: mqar, size: 4, learning_rate: 1.0e-2}
  - {experiment: pretrain, model: pocket-rwkv4, weights: "fresh:0", text: pocket, tokenizer: pocket, steps: 1,
     learning_rate: 1.0e-3, final_learning_rate: 1.0e-4, processes: [1, 2]}
"""


def each_once(tmp_path: Path) -> dict[str, Cell]:
    """A timed cell, two that one process measures, and one that two processes share."""
    path = tmp_path / "matrix.yaml"
    path.write_text(EACH_ONCE)
    return dict(zip(("timed", "plain", "whole", "shared"), matrix.read(path), strict=True))


def test_one_launcher_runs_a_cell(tmp_path: Path) -> None:
    cells = each_once(tmp_path)
    assert {name: launcher_of(cell, 1) for name, cell in cells.items()} == {
        "timed": "alone",
        "plain": "here",
        "whole": "here",
        "shared": "together",
    }
    assert {name: launcher_of(cell, 2) for name, cell in cells.items()} == {
        "timed": "alone",
        "plain": "beside",
        "whole": "beside",
        "shared": "together",
    }
    assert {"alone", "here", "beside", "together"} == set(LAUNCHERS)


def test_what_is_timed_is_alone_whatever_else_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXPERIMENTS, "pretrain", dataclasses.replace(EXPERIMENTS["pretrain"], timed=True))
    assert launcher_of(each_once(tmp_path)["shared"], 2) == "alone"


def test_threads_wait_as_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    assert process.environment()["GOMP_SPINCOUNT"] == "1000"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert process.environment() == dict(os.environ)
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    assert process.environment() == dict(os.environ)
