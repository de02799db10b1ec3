"""Whatever a measurement returns becomes a record that can be written, and the next cell is measured."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench import run
from bench.plan import EXPERIMENTS, Cell
from reports.store import Store
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
    experiment = SimpleNamespace(run=lambda *_, **__: next(results), SHAPE_ONLY=True, VERSION=1)
    monkeypatch.setitem(EXPERIMENTS, "kernels", experiment)  # type: ignore[arg-type]
    cells = [Cell("kernels", number, SPEC, "cpu", "float32", {}) for number in (1, 2)]
    store = Store(tmp_path)
    for record in run.measure(cells):
        store.write(record)
    records, damaged = store.read()
    first, second = (records[cell.id] for cell in cells)
    assert not damaged and second.status == "ok" and second.metrics == GOOD[0]
    assert first.status == "failed" and first.error.endswith("which is no result and cannot be recorded")
    assert re.match(why, first.error)
