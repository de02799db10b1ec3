"""Zero-shot scoring beside lm-eval's: answers of each architecture, what was timed, and the way from matrix to page."""

import copy
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import matrix
from bench.speed import harness, hflm
from evals.zeroshot import tasks
from reports.records.store import Store
from rwkv_core.errors import BadInput, Unsupported
from rwkv_core.load import load
from rwkv_core.models import find
from tests.evals import world

ROOT = Path(__file__).resolve().parents[3]
BOUND = 1e-4
MATRIX = """
runs:
  - experiment: harness
    model: [pocket-rwkv4, pocket-pythia]
    task: hellaswag
    data: pocket
    docs: 4
    batch_sizes: 1, 2
    rounds: 2
"""


@pytest.mark.parametrize("name", ["pocket-rwkv4", "pocket-opt"])  # the other families: test_hflm.py
def test_answers_are_those_of_lm_eval(name: str) -> None:
    model = load(name)
    for task in ("hellaswag", "record", "winogrande", "lambada_openai", "boolq"):
        metrics, samples = harness.run(model, device="cpu", task=task, data="pocket", docs=3, batch_sizes="1")
        assert metrics["difference"] <= BOUND and metrics["differing"] == []
        assert metrics["docs"] == 3 and metrics["requests"] >= 3
        assert samples["seconds"].keys() == {"ours", "1"}


def test_a_tokenizers_file_serves_random_weights(tmp_path: Path) -> None:
    model = load(find("pocket-opt", weights="random:0"))
    tokenizer = world.tokenizer(tmp_path / "tokenizer.json")
    files: dict[str, Any] = {"data": str(world.write(tmp_path / "data")), "tokenizer": str(tokenizer)}
    metrics, _ = harness.run(model, device="cpu", task="record", docs=2, batch_sizes="1", **files)
    assert metrics["difference"] <= BOUND and metrics["differing"] == []


def test_rounds_alternate_and_without_size_1_nothing_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[str] = []
    ours, theirs = hflm.ours, hflm.theirs
    monkeypatch.setattr(hflm, "ours", lambda task, lm, docs: turns.append("ours") or ours(task, lm, docs))
    monkeypatch.setattr(hflm, "theirs", lambda task, lm, docs: turns.append(lm.batch_size) or theirs(task, lm, docs))
    monkeypatch.setattr("bench.instruments.disturbance.AGAIN", 0)
    arguments: dict[str, Any] = {"task": "copa", "data": "pocket", "docs": 2, "batch_sizes": "2, 4", "rounds": 3}
    metrics, samples = harness.run(load("pocket-bloom"), device="cpu", **arguments)
    turn = ["ours", 2, 4]
    assert turns == turn + turn + turn[::-1] + turn  # the first is to warm up
    assert metrics["difference"] is None and metrics["differing"] is None
    assert {name: len(seconds) for name, seconds in samples["seconds"].items()} == {"ours": 3, "2": 3, "4": 3}
    assert len(samples["disturbance"]["intervals"]) == 3
    assert len(samples["forward_s"]) == 3 and min(samples["forward_s"]) > 0


def test_what_differs_is_named() -> None:
    task = tasks.load("copa", "pocket", "v0.4", 4)
    right = hflm.ours(task, hflm.as_lm(load("pocket-bloom"), "cpu", "own"))
    assert hflm.differences(task, right, right) == (0.0, [])
    wrong = copy.deepcopy(right)
    value, greedy = wrong.responses[1]
    wrong.responses[1] = (value + 0.5, not greedy)
    wrong.metrics["acc"] += 0.25
    difference, differing = hflm.differences(task, wrong, right)
    assert difference == pytest.approx(0.5)
    assert differing == ["1 greedy flags", f"acc ({wrong.metrics['acc']} for {right.metrics['acc']})"]
    wrong = copy.deepcopy(right)
    wrong.responses[1] = (math.nan, greedy)
    assert hflm.differences(task, wrong, right) == (0.0, ["1 log-likelihoods that are not finite"])
    texts = hflm.Answers(["a", "b"], right.metrics), hflm.Answers(["a", "c"], right.metrics)
    assert hflm.differences(task, *texts) == (None, ["1 texts"])


def test_a_runtime_without_transformers_weights_is_refused() -> None:
    class Foreign:
        spec = find("pocket-rwkv4", runtime="pip_rwkv")

    with pytest.raises(Unsupported, match="pocket-rwkv4 by pip_rwkv has no weights that HFLM could use"):
        hflm.causal(Foreign())  # type: ignore[arg-type]


@pytest.mark.parametrize("sizes", ["8, 4", "4,8", "0, 4", "4, 4", "many", "''", "4"])
def test_batch_sizes_are_written_in_one_way(tmp_path: Path, sizes: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(MATRIX.replace("1, 2", sizes))
    with pytest.raises(BadInput, match='batch_sizes must be rising whole numbers of at least 1 in quotes, as in "8'):
        matrix.read(path)


def test_from_matrix_to_page(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(MATRIX)
    store, out = tmp_path / "store", tmp_path / "out"
    command = [sys.executable, "-m", "bench.cli"]
    run = [*command, "run", str(tmp_path / "m.yaml"), "--store", str(store)]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    records, _ = Store(store).read()
    assert [record.cell.model.name for record in records if record.measured] == ["pocket-pythia", "pocket-rwkv4"]
    for record in records:
        assert record.metrics["difference"] <= BOUND and record.metrics["differing"] == []
        assert record.samples["seconds"].keys() == {"ours", "1", "2"} and record.provenance["versions"]["lm_eval"]
        assert str(tmp_path) not in json.dumps(record.cell.to_json())
    report = [*command, "report", str(store), "--out", str(out)]
    done = subprocess.run(report, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (out / "report.md").read_text()
    assert "## Scoring beside lm-eval's HFLM, pocket world" in page
    assert "| HellaSwag | 4 |" in page and "every greedy flag and metric is the same" in page


def test_the_matrices_are_whole() -> None:
    twelve = {name for name, entry in tasks.catalogue().items() if entry.get("twelve")}
    for name, count in (("zeroshot-answers", 4), ("zeroshot-check", 2)):
        cells = matrix.read(ROOT / "configs" / f"{name}.yaml")
        assert len(cells) == 12 * count and {cell.params["task"] for cell in cells} == twelve
