"""`make gpu` without a GPU: it says so; and with one, it neither stops at a cell that fails nor tries it for ever."""

from pathlib import Path

import pytest
import torch

from bench import matrix
from tests import gpu

MATRIX = """
runs:
  - experiment: kernels
    model: rwkv4-169m
    weights: random:0
    tokens: [3, 4, 5]
    rounds: 3
"""


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main() == 1
    assert "no CUDA device" in capsys.readouterr().out


def test_a_cell_that_fails_is_tried_twice_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "three.yaml").write_text(MATRIX)
    started: list[int] = []

    def execute(chosen: matrix.Chosen) -> None:
        (cell,) = chosen.cells
        started.append(cell.params["tokens"])
        record = matrix.run.without_result(cell, "failed" if cell.params["tokens"] == 3 else "unsupported", "so")
        chosen.store.write(record)

    monkeypatch.setattr(matrix, "execute", execute)
    chosen = gpu.measure(Path("three.yaml"), gpu.time.monotonic())
    assert started == [3, 4, 5, 3]
    assert [cell.params["tokens"] for cell in chosen.pending] == [3]
    assert gpu.measure(Path("three.yaml"), gpu.time.monotonic()).pending == chosen.pending and len(started) == 4
    assert gpu.measure(Path("three.yaml"), gpu.time.monotonic() - 500).cells and len(started) == 4
