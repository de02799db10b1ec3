"""A process that measures several cells: one start for all, a new one after a death, an end to what hangs."""

import os
import signal
from pathlib import Path

import pytest

from bench import launch, matrix

MATRIX = """
runs:
  - {experiment: kernels, model: rwkv4-169m, weights: random:0, tokens: [2, 3], rounds: 3}
  - {experiment: kernels, model: pythia-14m, weights: random:0, tokens: 2, rounds: 3}
"""


def test_cells_share_a_process_until_it_dies_or_a_cell_takes_too_long(tmp_path: Path) -> None:
    path = tmp_path / "matrix.yaml"
    path.write_text(MATRIX)
    first, second, without = matrix.read(path)
    with launch.Process() as process:
        records = [process.measure(cell, 120) for cell in (first, second, without)]
        assert [record.measured for record in records] == [True, True, False] and records[2].status == "unsupported"
        assert [record.id for record in records] == [first.id, second.id, without.id]
        child = process._child
        assert child is not None and child.poll() is None, "one process for all of them, other models and findings too"

        child.kill()
        record = process.measure(first)
        assert record.status == "failed" and "was killed by SIGKILL" in record.error
        assert process.measure(second, 120).measured and process._child is not child

        child = process._child
        record = process.measure(first, 0.001)
        assert record.status == "failed" and "ended after" in record.error
        assert process._child is None and child is not None and child.poll() == -signal.SIGKILL
        process.measure(first, 120)
        child = process._child
    assert child is not None and child.poll() is not None, "none goes on afterwards"
    assert {record.provenance["waits"] for record in records if record.measured} == {"passive"}


def test_threads_wait_as_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert launch.environment()["OMP_WAIT_POLICY"] == "passive"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert launch.environment() == dict(os.environ)
