"""On what a number was measured."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest

from reports.records import provenance


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        (
            "cpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC\n\ncpu family\t: 6\nmodel name\t: other\n",
            "AMD EPYC (family 25, model 1)",
        ),
        ("processor\t: 0\nHardware\t: BCM2711\nModel\t\t: Raspberry Pi 4\n", "BCM2711"),
        (
            "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n",
            f"{platform.machine()} (implementer 0x41, part 0xd40)",
        ),
        ("processor\t: 0\n", platform.machine()),
    ],
)
def test_processors_that_share_a_name_are_told_apart(tmp_path: Path, cpuinfo: str, name: str) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert provenance.cpu_name(tmp_path / "cpuinfo") == name


def test_a_system_that_names_no_processor(tmp_path: Path) -> None:
    assert provenance.cpu_name(tmp_path / "cpuinfo") == platform.machine()


def test_an_installed_package_has_not_the_commit_of_the_project_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "--quiet", "--allow-empty", "--message=a"]
    for arguments in (["init", "--quiet"], commit):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    inside = tmp_path / ".venv" / "site-packages"
    inside.mkdir(parents=True)
    for root, checkout in ((tmp_path, True), (inside, False)):
        monkeypatch.setattr(provenance, "ROOT", root)
        known = provenance.git.__wrapped__()
        assert (known["commit"] is not None, known["dirty"]) == ((True, False) if checkout else (False, None))
