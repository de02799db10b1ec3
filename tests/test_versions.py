"""The version of an experiment moves when what it runs changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bench.experiments import EXPERIMENTS, VERSIONS
from tests.versions import COMMAND, GOLDEN, ROOT, Sources, asked, renew, state


def test_an_experiment_that_runs_something_else_has_another_version() -> None:
    sources, golden = Sources(ROOT), json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert not (lines := asked(sources, golden)), "\n".join(lines.values())
    assert golden == state(sources), f"the file is older than a version or a source: call `{COMMAND}`"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for layer in ("rwkv_core", "evals", "bench"):
        left_out = shutil.ignore_patterns("__pycache__", "data", "checkpoints", "*.so")
        shutil.copytree(ROOT / layer, tmp_path / layer, ignore=left_out)
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


OF_MODELS = {name for name, experiment in EXPERIMENTS.items() if experiment.subject == "model"}


@pytest.mark.parametrize(
    ("file", "old", "new", "experiments"),
    [
        ("rwkv_core/wkv/wkv4/wkv4.c", "return", "return 1 +", set(EXPERIMENTS)),
        ("rwkv_core/wkv/wkv4/triton_backward.py", "num_warps=1", "num_warps=2", set(EXPERIMENTS)),
        ("evals/lra/mixers/hyena.py", "class ", "LENGTH = 3\n\n\nclass ", {"lra", "encoders"}),
        ("rwkv_core/runtimes/hf.py", "keep: bool = True", "keep: bool = False", OF_MODELS),
        ("bench/instruments/race.py", "import math", "import os\nimport math", {"kernels", "peers", "encoders"}),
        ("rwkv_core/wkv/wkv4/wkv4.c", "return", "/* a comment */ // another\n  return", set()),
        ("evals/lra/mixers/hyena.py", "class ", "# a comment\n\n\nclass ", set()),
        ("bench/speed/inference.py", '"""Generation', '"""A docstring of generation', set()),
        ("evals/language/pretrain.py", "VERSION = ", "VERSION = 1", set()),
    ],
)
def test_a_change_asks_those_that_run_it(tree: Path, file: str, old: str, new: str, experiments: set[str]) -> None:
    before = state(Sources(tree))
    edit(tree / file, old, new)
    lines = asked(Sources(tree), before)
    assert set(lines) == experiments
    assert all(Path(file).stem in line and f"--same {experiment}`" in line for experiment, line in lines.items())


def test_a_version_that_moved_is_an_answer_and_so_is_saying_that_no_number_changes(tree: Path) -> None:
    before = state(Sources(tree))
    golden = tree / "golden.json"
    golden.write_text(json.dumps({**before, "versions": {**VERSIONS, "encoders": 0}}))
    edit(tree / "evals/lra/mixers/hyena.py", "class ", "LENGTH = 3\n\n\nclass ")
    (line,) = renew(Sources(tree), golden, [])
    assert line.startswith(f"lra {VERSIONS['lra']} runs other sources (evals.lra.mixers.hyena)")
    assert renew(Sources(tree), golden, ["lra"]) == [] and json.loads(golden.read_text()) == state(Sources(tree))
