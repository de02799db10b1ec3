"""What is installed is whole: a wheel holds every file of the packages, and plans its own matrix in any folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("rwkv_core", "evals", "reports", "bench", "configs")
LEFT_OUT = ("__pycache__", "gallery", "out", "*.so")  # made by use, or results


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel, built from a copy so that the checkout stays as it is."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", target]
    done = subprocess.run([*map(str, build), "."], cwd=source, capture_output=True, text=True, env=_without_compiler())
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = target.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(target / "site")
    return target / "site"


def _without_compiler() -> dict[str, str]:
    """The kernel in C is optional, and compiling it would be most of the time."""
    return {**os.environ, "CC": "false"}


def test_every_file_of_the_packages_is_in_the_wheel(installed: Path) -> None:
    for name in PACKAGES:
        ignored = shutil.ignore_patterns(*LEFT_OUT)
        for folder, folders, files in os.walk(ROOT / name):
            skipped = ignored(folder, [*folders, *files])
            folders[:] = [one for one in folders if one not in skipped]
            for file in set(files) - skipped:
                assert (installed / Path(folder, file).relative_to(ROOT)).is_file(), (
                    f"{folder}/{file} is not in the wheel"
                )


PLAN = """
import sys
from pathlib import Path
from bench import cli
for path in sorted(Path(sys.argv[1], "configs").rglob("*.yaml")):
    if "\\nruns:" in path.read_text(encoding="utf-8"):
        print(path.name)
        cli.plan(path)
"""


def test_every_installed_matrix_is_planned_in_another_folder(installed: Path, tmp_path: Path) -> None:
    planned = []
    for root in (installed, ROOT):
        environment = {**os.environ, "PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-c", PLAN, str(root)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        planned.append(done.stdout)
    # what generation takes at least is measured anew each time
    planned = [re.sub(r"[\d.]+(-[\d.]+)? (ms a token|min)", "", text) for text in planned]
    assert planned[0] == planned[1] and "pocket-train.yaml" in planned[0]
