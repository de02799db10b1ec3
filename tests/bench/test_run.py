"""Whatever a measurement returns becomes a record that can be written, and the next cell is measured."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import run, schedule
from bench.cells import make
from bench.experiments import EXPERIMENTS
from evals.experiment import Experiment
from reports.records.store import Store
from rwkv_core.errors import BadInput
from rwkv_core.models import ROOT
from rwkv_core.spec import ModelSpec

SPEC = ModelSpec("tiny", "rwkv4", {"model_type": "rwkv"}, weights="random:0")
GOOD: Any = ({"score": 1.5, "names": ["a"], "none": None}, {"items": [{"right": True}]})


@pytest.mark.parametrize(
    "metrics,samples,why",
    [
        ({"perplexity": float("inf")}, {}, "metrics.perplexity is inf"),
        ({"acc": 1.0, "errors": {"triton": float("nan")}}, {}, "metrics.errors.triton is nan"),
        ({}, {"losses": [[1.0, 2.0], [1.0, float("-inf")]]}, r"samples.losses\[1\]\[1\] is -inf"),
        ({}, {"items": [{"loglikelihoods": [float("nan")]}]}, r"samples.items\[0\].loglikelihoods\[0\] is nan"),
        ({"acc": np.float32(0.5)}, {}, r"metrics.acc is np.float32\(0.5\)"),
    ],
)
def test_a_result_that_cannot_be_recorded_is_a_failed_cell(
    metrics: Any, samples: Any, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = iter([(metrics, samples), GOOD])
    experiment = Experiment(lambda *_, **__: next(results), version=1, subject="spec")
    monkeypatch.setitem(EXPERIMENTS, "kernels", experiment)
    cells = [make("kernels", SPEC, "cpu", "float32", {"seed": number}) for number in (1, 2)]
    store = Store(tmp_path)
    for record in run.measure(cells):
        store.write(record)
    records, damaged = store.read()
    first, second = (next(record for record in records if record.id == cell.id) for cell in cells)
    assert not damaged and second.status == "ok" and second.metrics == GOOD[0]
    assert first.status == "failed" and first.error.endswith("which is no result and cannot be recorded")
    assert re.match(why, first.error)


def _raise(error: Exception) -> Any:
    raise error


@pytest.mark.parametrize("kind", [BadInput, RuntimeError])
def test_a_failed_record_tells_no_folder(
    kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the file; the traceback, this package's and torch's files."""
    path = tmp_path / "somebody" / "caf\udce9.pth"
    path.parent.mkdir()
    path.touch()
    error = kind(f"{path}: damaged; see {ROOT}/README.md and {Path.home()}/.cache/x, not /mnt{tmp_path}/y")
    experiment = Experiment(lambda *_, **__: _raise(error), version=1, subject="spec")
    monkeypatch.setitem(EXPERIMENTS, "kernels", experiment)
    (record,) = run.measure([make("kernels", SPEC, "cpu", "float32", {}, paths={"text": str(path)})])
    assert record.error == rf"caf\udce9.pth: damaged; see README.md and .cache/x, not /mnt{tmp_path}/y"
    assert ('File "bench/run.py", line' in record.traceback) == (kind is RuntimeError)
    for folder in (tmp_path / "somebody", ROOT):
        assert str(folder) not in record.to_json()


def test_the_user_is_told_where_the_files_of_a_failed_cell_lie(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"damaged")
    text = {"experiment": "zeroshot", "model": "pocket-rwkv4", "weights": str(path), "task": "piqa", "data": "pocket"}
    (tmp_path / "m.yaml").write_text(json.dumps({"runs": [text]}))
    schedule.execute(schedule.choose(tmp_path / "m.yaml", tmp_path / "store", ""))
    said = capsys.readouterr()
    assert "weights.pth: cannot be read as a checkpoint" in said.out + said.err
    assert f"(reads {path})" in said.out + said.err
    (record,) = Store(tmp_path / "store").read()[0]
    assert record.error.startswith("weights.pth: ") and str(tmp_path) not in record.to_json()
