"""docs/extending.md to the letter: its experiment is added to a copy of the project, planned, run and shown."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("configs", "rwkv_core", "evals", "reports", "bench")


def edits() -> list[tuple[str, str, str]]:
    """Of the section on an experiment: file, python (all of a new file) or diff, and the block."""
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    section = text[text.index("## An experiment") :]
    blocks = re.finditer(r"```(python|diff)\n(.*?)```", section, re.S)
    return [(re.findall(r"`([\w/]+\.py)`", section[: block.start()])[-1], block[1], block[2]) for block in blocks]


def insert(text: str, diff: str) -> str:
    """The text with each added line behind the line that stands before it in the diff."""
    for before, added in re.findall(r"^ (.*)\n\+(.*)$", diff, re.M):
        assert text.count(f"{before}\n") == 1, f"{before!r} stands there {text.count(before)} times"
        text = text.replace(f"{before}\n", f"{before}\n{added}\n")
    return text


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the edits of the page and no others."""
    copy = tmp_path_factory.mktemp("project")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("gallery", "out", "__pycache__"))
    for file, kind, block in edits():
        path = copy / file
        assert path.exists() == (kind == "diff")
        path.write_text(
            block if kind == "python" else insert(path.read_text(encoding="utf-8"), block), encoding="utf-8"
        )
    return copy


COMMANDS = """
import contextlib, io, json, sys
from bench import cli
said = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["rwkv-bench", *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            cli.main()
        except SystemExit as ended:
            if ended.code:
                raise
    said.append(out.getvalue())
print(json.dumps(said))
"""


def commands(project: Path, *lines: str) -> list[str]:
    """What each command line of the copy prints; one process for all of them, since each start imports torch."""
    call = [sys.executable, "-c", COMMANDS, json.dumps([line.split() for line in lines])]
    environment = {**os.environ, "PYTHONPATH": str(project)}
    done = subprocess.run(call, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said: list[str] = json.loads(done.stdout)
    return said


def test_the_page_names_two_new_files_and_two_tables() -> None:
    assert [(file, kind) for file, kind, _ in edits()] == [
        ("evals/repetition.py", "python"),
        ("bench/experiments.py", "diff"),
        ("reports/views/repetition.py", "python"),
        ("reports/views/table.py", "diff"),
    ]


def test_the_experiment_of_the_page_is_explained_planned_run_and_shown(project: Path) -> None:
    (matrix,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(encoding="utf-8"), re.S)
    (project / "m.yaml").write_text(matrix, encoding="utf-8")
    run = "run m.yaml --store store"
    explained, planned, first, second, _ = commands(
        project, "explain repetition", "plan m.yaml --store store", run, run, "report store --out page"
    )
    assert "tokens: int of at least 1; default 64" in explained and "of the random text." in explained
    assert "4 cells, 4 to measure" in planned and "4 ok" in first and "nothing to measure" in second
    page = (project / "page" / "report.md").read_text(encoding="utf-8")
    assert "## Repetition" in page and page.count("| pocket RWKV-4 |") == 2 and page.count("| pocket Pythia |") == 2


def test_the_edits_of_the_page_are_as_this_project_is_written(project: Path) -> None:
    files = [str(project / file) for file, _, _ in edits()]
    for check in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *check, "--config", str(ROOT / "pyproject.toml"), *files]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
