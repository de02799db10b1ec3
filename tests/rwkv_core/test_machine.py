"""The CPUs and the memory that a process may use: affinity, a container's quota and limit, `ulimit`."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from bench.instruments import counters
from rwkv_core import machine

GIB = 1 << 30
ROOT = Path(__file__).resolve().parents[2]


def groups(monkeypatch: pytest.MonkeyPatch, folder: Path, membership: str, files: dict[str, str]) -> None:
    """A control group file system of these files, and the process's place in it."""
    for name, text in {"membership": membership, **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(machine, "CGROUPS", folder)
    monkeypatch.setattr(machine, "MEMBERSHIP", folder / "membership")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


@pytest.mark.parametrize(
    ("membership", "files", "quota", "cores"),
    [
        ("0::/pod/box\n", {"pod/box/cpu.max": "250000 100000\n", "cpu.max": "max 100000\n"}, 2.5, 2),
        ("0::/pod/box\n", {"pod/box/cpu.max": "max 100000\n", "pod/cpu.max": "400000 100000\n"}, 4.0, 4),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 0.5, 1),
        ("0::/\n", {"cpu.max": "1600000 100000\n"}, 16.0, 8),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None, 8),
        (
            "4:cpu,cpuacct:/docker/a\n0::/\n",
            {"cpu,cpuacct/docker/a/cpu.cfs_quota_us": "300000\n", "cpu,cpuacct/docker/a/cpu.cfs_period_us": "100000\n"},
            3.0,
            3,
        ),
        ("1:cpu:/a\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None, 8),
        ("1:cpu:/outside\n", {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0, 2),
        ("0::/caf\u00e9.slice\n", {"caf\u00e9.slice/cpu.max": "300000 100000\n"}, 3.0, 3),
        ("0::/\n", {"cpu.max": "300000\n"}, None, 8),
        ("1:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "300000\n"}, None, 8),
        ("no such format\n", {}, None, 8),
        ("", {}, None, 8),
    ],
)
def test_a_quota_of_cpus_counts_as_well_as_the_affinity(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    membership: str,
    files: dict[str, str],
    quota: float | None,
    cores: int,
) -> None:
    groups(monkeypatch, tmp_path, membership, files)
    assert machine.cpu_quota() == quota
    assert machine.cores() == cores


@pytest.mark.parametrize(
    ("membership", "files"),
    [
        (
            "0::/box\n",
            {
                "box/memory.max": f"{GIB}\n",
                "box/memory.current": f"{GIB // 2}\n",
                "box/memory.stat": f"anon 5\ninactive_file {GIB // 8}\n",
                "memory.max": "max\n",
            },
        ),
        (
            "7:memory:/box\n",
            {
                "memory/memory.limit_in_bytes": "9223372036854771712\n",
                "memory/box/memory.limit_in_bytes": f"{GIB}\n",
                "memory/box/memory.usage_in_bytes": f"{GIB // 2}\n",
                "memory/box/memory.stat": f"cache 5\ntotal_inactive_file {GIB // 8}\n",
            },
        ),
    ],
)
def test_a_containers_limit_is_all_the_memory_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, membership: str, files: dict[str, str]
) -> None:
    groups(monkeypatch, tmp_path, membership, files)
    assert machine.total_memory() == GIB
    assert machine.free_memory() == GIB // 2 + GIB // 8


def test_without_limits_it_is_the_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups(monkeypatch, tmp_path, "0::/\n", {"memory.max": "max\n"})
    assert machine.total_memory() == psutil.virtual_memory().total
    assert 0 < machine.free_memory() <= machine.total_memory()


def test_a_limit_counts_though_what_is_used_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"memory.max": f"{GIB}\n", "memory.current": "many\n", "memory.stat": "anon 5 kB\ninactive_file\n"}
    groups(monkeypatch, tmp_path, "0::/\n", files)
    assert machine.total_memory() == machine.free_memory() == GIB


def test_a_system_without_affinity_gives_all_its_cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups(monkeypatch, tmp_path, "", {})
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert machine.affinity() == {0, 1, 2} and machine.cores() == counters.read(tmp_path).cores == 3


def test_a_system_that_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise FileNotFoundError("/proc/meminfo")

    groups(monkeypatch, tmp_path, "", {})
    monkeypatch.setattr(psutil, "virtual_memory", refuse)
    assert machine.total_memory() is None and machine.free_memory() is None


def test_affinity_and_ulimit_of_a_real_process() -> None:
    code = (
        "import os, resource; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        f"resource.setrlimit(resource.RLIMIT_AS, ({GIB}, {resource.RLIM_INFINITY}));"
        "from rwkv_core import machine; print(machine.cores(), machine.total_memory(), machine.free_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    cores, total, free = map(int, done.stdout.split())
    assert cores == 1 and total == GIB and 0 < free < GIB
