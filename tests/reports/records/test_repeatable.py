"""The gallery takes records of code that a commit holds, and of no other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reports.records import provenance
from reports.records.store import Store
from rwkv_core.errors import BadInput
from tests import make

ROOT = Path(__file__).resolve().parents[3]
RECORDS = "reports/gallery/some/records"
MATRIX = """
runs:
  - {experiment: inference, model: recall-rwkv4, weights: "random:0", prompt_tokens: 4, new_tokens: [4, 5]}
"""


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments], check=True)


def commit(root: Path) -> None:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message=a")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout with one module, one page and one record, which this process takes for the one that it runs from."""
    root = tmp_path / "checkout"
    for file in ("evals/module.py", "docs/page.md", f"{RECORDS}/machine/record.json"):
        (root / file).parent.mkdir(parents=True)
        (root / file).write_text("a")
    (root / ".gitignore").write_text("*.so\n")
    git(tmp_path, "init", "--quiet", str(root))
    commit(root)
    monkeypatch.setattr(provenance, "ROOT", root)
    provenance.git.cache_clear()
    yield root
    provenance.git.cache_clear()


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        ("evals/module.py", True),
        ("docs/page.md", True),
        ("evals/new.py", True),
        ("evals/new.yaml", True),
        ("evals/compiled.so", False),
        ("notes.txt", False),
        (f"{RECORDS}/machine/record.json", False),
        (f"{RECORDS}/machine/new.json", False),
    ],
)
def test_code_is_changed_by_code_and_not_by_records(checkout: Path, file: str, changed: bool) -> None:
    assert provenance.changes() == []
    (checkout / file).write_text("b")
    assert provenance.changes() == ([file] if changed else [])
    assert provenance.git()["dirty"] is changed


def test_a_change_that_is_staged_or_taken_away_is_one(checkout: Path) -> None:
    (checkout / "evals/module.py").unlink()
    (checkout / "evals/staged.py").write_text("b")
    git(checkout, "add", "evals/staged.py")
    assert provenance.changes() == ["evals/module.py", "evals/staged.py"]


@pytest.mark.parametrize("way", ["absolute", "relative", "up and down", "link", "folder of the gallery itself"])
def test_the_gallery_is_refused_however_its_path_is_written(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.chdir(checkout)
    Path("link").symlink_to(checkout / "reports")
    paths = {
        "absolute": checkout / RECORDS,
        "relative": Path(RECORDS),
        "up and down": Path("evals/../reports/gallery/new"),
        "link": Path("link/gallery/new"),
    }
    store = Store(paths.get(way, checkout / "reports/gallery"))
    with store.locked():
        pass
    (checkout / "evals/new.py").write_text("b")
    said = r"^\S+: in the gallery.*evals/new\.py.*commit or undo that.*--store"
    with pytest.raises(BadInput, match=said), store.locked():
        pass
    with Store(checkout / "results").locked():
        pass


def test_many_changes_are_one_line(checkout: Path) -> None:
    for name in "abcde":
        (checkout / f"evals/{name}.py").write_text("b")
    with pytest.raises(BadInput, match=r"\(evals/a\.py, evals/b\.py, evals/c\.py and 2 more\)"):
        provenance.check_repeatable(checkout / RECORDS)


def test_code_that_no_commit_names_is_not_for_the_gallery(checkout: Path) -> None:
    shutil.rmtree(checkout / ".git")
    assert provenance.changes() is None
    with pytest.raises(BadInput, match="no commit names this code"):
        provenance.check_repeatable(checkout / RECORDS)


def test_a_record_from_changed_code_is_not_written_into_the_gallery(checkout: Path) -> None:
    cell = make.cell("kernels", "rwkv4-169m", {"tokens": 3})
    store = Store(checkout / "reports/gallery/other/records")
    for dirty in (True, None):
        with pytest.raises(BadInput, match=r"code was changed before kernels\S+ was measured"):
            store.write(make.record(cell, dirty=dirty))
        assert Store(checkout / "results").write(make.record(cell, dirty=dirty)).is_file()
    assert store.write(make.record(cell)).is_file()


def test_a_run_writes_several_records_and_refuses_when_the_code_has_changed(tmp_path: Path) -> None:
    """In a copy of the checkout: the first record must not make the second one's tree a changed one."""
    root, store = tmp_path / "copy", Path(RECORDS)
    for name in provenance.PACKAGES:
        left_out = shutil.ignore_patterns("gallery", "out", "__pycache__", "pocket")
        shutil.copytree(ROOT / name, root / name, ignore=left_out)
    shutil.copy(ROOT / ".gitignore", root)
    (root / "m.yaml").write_text(MATRIX)
    git(tmp_path, "init", "--quiet", str(root))
    commit(root)

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bench.cli", "run", "m.yaml", "--store", str(store)]
        environment = {**os.environ, "PYTHONPATH": str(root)}
        return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)

    done = run()
    assert done.returncode == 0, done.stderr
    records, _ = Store(root / store).read()
    assert [record.provenance["dirty"] for record in records] == [False, False]
    next((root / store).glob("*/*.json")).unlink()
    with (root / "bench/run.py").open("a") as file:
        file.write("# a comment\n")
    refused = run()
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1, refused.stderr
    assert f"{store}: in the gallery" in refused.stderr and "bench/run.py" in refused.stderr
    assert len(Store(root / store).read()[0]) == 1
