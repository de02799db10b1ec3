"""The tracker of live tensors counts storages, not views; resident growth sees what is held."""

from pathlib import Path

import pytest
import torch

from bench import matrix, run
from bench.instruments import memory
from bench.instruments.memory import Peak
from bench.speed import inference
from reports.views import inference as inference_views
from reports.views.table import read
from tests.checks import parity


def test_live_tensors_are_counted_exactly() -> None:
    before = torch.ones(500)
    peak = Peak("cpu")
    with peak.tracking(), peak.watch():
        a = torch.zeros(1000)
        b = a + 1  # 8000 bytes live
        view = b.view(10, 100)[3:].t()
        del b
        assert peak._tracker.live == 8000  # the view keeps the storage
        del view
        assert peak._tracker.live == 4000
        a.add_(1)
        alias = before[10:]  # made before: not ours
        assert peak._tracker.live == 4000
        del a, alias
        assert peak._tracker.live == 0
    assert peak.metrics()["peak_live_bytes"] == 8000


def test_only_what_is_watched_counts_and_what_lives_on_does() -> None:
    peak = Peak("cpu")
    with peak.tracking():
        torch.zeros(10_000).sum()
        kept = torch.zeros(100)
        with peak.watch():
            torch.zeros(1000)
    assert peak.metrics()["peak_live_bytes"] == 4400
    assert len(kept) == 100


def test_resident_growth_sees_a_large_block() -> None:
    peak = Peak("cpu")
    with peak.watch():
        block = torch.ones(64 << 20, dtype=torch.uint8)
    del block
    assert 64 << 20 <= peak.metrics()["resident_growth_bytes"] < 90 << 20


STATUS = "Name:\tpython\nVmSize:\t  900000 kB\nVmRSS:\t  500000 kB\nVmHWM:\t  500100 kB\nThreads:\t1\n"
SYSTEMS = {  # what /proc/self/status and clear_refs are like, and what is said
    "no high-water mark, as in gVisor": (STATUS.replace("VmHWM", "VmPeak"), True, "status: VmHWM is missing"),
    "no resident size": (STATUS.replace("VmRSS", "Rss"), True, "status: VmRSS is missing"),
    "a value that is none": (STATUS.replace("500100 kB", ""), True, "status: VmHWM is missing"),
    "no status": (None, True, "status: No such file or directory"),
    "no clear_refs": (STATUS, False, "clear_refs: Is a directory"),
    "a mark that stays": (STATUS.replace("500100", "700000"), True, "clear_refs does not reset VmHWM"),
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_system_that_does_not_tell_makes_no_cell_fail(
    system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, clear, why = SYSTEMS[system]
    if status is not None:
        (tmp_path / "status").write_text(status)
    monkeypatch.setattr(memory, "STATUS", tmp_path / "status")
    monkeypatch.setattr(memory, "CLEAR_REFS", tmp_path / "clear_refs")
    if not clear:
        (tmp_path / "clear_refs").mkdir()
    metrics, samples = inference.run(parity.make("tiny"), device="cpu", prompt_tokens=3, new_tokens=4)
    assert metrics["peak_live_bytes"] > 0 and "resident_growth_bytes" not in metrics | samples["memory"][-1]
    assert metrics["resident_growth_missing"].endswith(why)


def test_the_page_has_a_dash_and_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "status").write_text("Name:\tpython\n")
    monkeypatch.setattr(memory, "STATUS", tmp_path / "status")
    (cell,) = matrix.read(_matrix(tmp_path))
    (record,) = run.measure([cell])
    (view,) = inference_views.views(read([record]))
    (table,) = [table for table in view.tables if table.name.startswith("memory")]
    assert record.measured and table.frame["resident growth"].tolist() == ["-"]
    assert "A dash: the system does not tell" in table.note and "VmHWM is missing" in table.note


def _matrix(folder: Path) -> Path:
    path = folder / "m.yaml"
    path.write_text(
        "runs: [{experiment: inference, model: pythia-14m, weights: random:0, prompt_tokens: 3, new_tokens: 4}]"
    )
    return path


def test_another_c_library_is_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())
    peak = memory.Peak("cpu")
    with peak.watch():
        pass
    assert "resident_growth_bytes" in peak.metrics() and not peak.missing()
