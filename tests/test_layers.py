"""The house: imports run downwards only."""

import ast
import functools
import graphlib
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch

import configs
from bench.experiments import EXPERIMENTS
from evals.lra import data
from evals.needles import haystacks
from evals.recall import sequences as recall
from reports.views.table import READINGS
from rwkv_core import architectures
from rwkv_core.rwkv.version import VERSIONS
from rwkv_core.wkv import OPERATORS
from rwkv_core.wkv.operator import FALLBACK, ORACLE
from tests.checks.wkv_cases import CASES

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = {
    "configs": {"configs"},
    "rwkv_core": {"rwkv_core", "configs"},
    "evals": {"evals", "rwkv_core", "configs"},
    "reports": {
        "reports",
        "rwkv_core.architectures",
        "rwkv_core.dtypes",
        "rwkv_core.errors",
        "rwkv_core.files",
        "rwkv_core.spec",
        "rwkv_core.machine",
        "configs",
    },
    "bench": {"bench", "evals", "reports", "rwkv_core", "configs"},
}


@functools.cache  # by text: several tests ask, some of them for copies of the tree
def _imports(text: str) -> list[ast.Import | ast.ImportFrom]:
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]


def imported(path: Path) -> set[str]:
    found = set()
    for node in _imports(path.read_text(encoding="utf-8")):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        else:
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("layer", ALLOWED)
def test_imports_run_downwards(layer: str) -> None:
    files = list((ROOT / layer).rglob("*.py"))
    assert files
    for path in files:
        for name in imported(path):
            if name.split(".")[0] in ALLOWED:
                assert any(f"{name}.".startswith(f"{allowed}.") for allowed in ALLOWED[layer]), f"{path} imports {name}"


def test_no_import_runs_in_a_circle() -> None:
    """Imports inside functions, and those for types alone, count."""
    paths = [path for layer in ALLOWED for path in (ROOT / layer).rglob("*.py")]
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        prefixes = [[name.rsplit(".", i)[0] for i in range(name.count(".") + 1)] for name in imported(path)]
        nearest = {next((prefix for prefix in own if prefix in modules), "") for own in prefixes}
        graph[module] = {name for name in nearest if name and not f"{module}.".startswith(f"{name}.")}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError naming the modules


def test_text_is_utf8_whatever_the_locale() -> None:
    """Every text file is opened with its encoding; `rwkv_core.utf8` does it for those that come from others."""
    for path in (path for layer in ALLOWED for path in (ROOT / layer).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or (called := ast.unparse(node.func)) in ("os.open", "Image.open"):
                continue
            if called.rpartition(".")[2] in ("read_text", "write_text", "open"):
                binary = any(isinstance(mode, ast.Constant) and "b" in str(mode.value) for mode in node.args)
                said = any(keyword.arg == "encoding" for keyword in node.keywords)
                assert binary or said, f"{path}, line {node.lineno}: {called} without encoding="


@pytest.mark.parametrize(
    ("module", "absent"), [("reports.page", ("torch",)), ("bench.launch.__main__", ("lm_eval", "transformers"))]
)
def test_what_is_heavy_is_not_needed(module: str, absent: tuple[str, ...]) -> None:
    code = f"import sys, {module}; sys.exit(bool(sys.modules.keys() & {absent!r}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_every_experiment_is_shown() -> None:
    """Its values become rows, and it is known what tells its cells apart and what of them is compared."""
    assert set(EXPERIMENTS) == set(READINGS)
    assert all(reading.compared for reading in READINGS.values())


def test_every_operator_has_an_oracle_cases_and_a_model() -> None:
    """So that no implementation is without a test, and none without a race."""
    assert set(OPERATORS) == set(CASES) == {version.OPERATOR.name for version in VERSIONS}
    hints = EXPERIMENTS["kernels"].hints
    for operator in OPERATORS.values():
        assert {ORACLE, FALLBACK} <= set(operator.implementations) and set(operator.moved) == set(
            get_args(hints["direction"])
        )
        inputs, dy = operator.example((2, 3, 4), "cpu", torch.float32, seed=1)
        y, _ = operator.call(*inputs, impl=ORACLE)
        assert y.shape == dy.shape == inputs[-1].shape and y.flatten(2).shape == (2, 3, 4)
        assert set(operator.multiply_adds) == (set(operator.moved) if y.ndim == 4 else set())


def test_every_version_of_rwkv_has_its_arithmetic_and_its_family() -> None:
    for version in VERSIONS:
        row = architectures.ARCHITECTURES[version.MODEL_TYPE]
        assert row.recurrent and row.runtime == "native" and row.parameters and row.flops
        assert version.FAMILY in configs.read("families") and version.FAMILY.startswith("rwkv")


def test_every_task_has_a_title() -> None:
    for tasks in (recall.TASKS, haystacks.TASKS, data.TASKS):
        titles = [task.title for task in tasks.values()]
        assert all(titles) and len(set(titles)) == len(titles)
    for name in ("tasks", "prompts"):
        assert all(entry["label"] for entry in configs.read(name).values())
