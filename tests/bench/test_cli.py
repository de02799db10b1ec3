"""The command line: help that teaches, one line for what is wrong, exit codes."""

import io
import sys
from pathlib import Path

import pytest

from bench import cli
from reports.records.store import Store
from rwkv_core.errors import BadInput
from tests import make
from tests.make import measured_elsewhere
from tests.reports import test_page
from tests.reports.views import test_zeroshot
from tests.reports.views.test_decode import record

ROOT = Path(__file__).resolve().parents[2]


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["rwkv-bench", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_help_teaches_the_next_step(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "--help") == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("plan", "run", "report", "doctor", "configs/pocket.yaml"))


def test_plan_and_dry_run_measure_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    for arguments in (["plan"], ["run", "--dry-run"]):
        assert call(monkeypatch, *arguments, str(ROOT / "configs" / "inference-cpu.yaml"), "--store", str(store)) == 0
        assert "132 cells, 132 to measure" in capsys.readouterr().out
    assert not store.exists()


def test_what_is_wrong_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    empty = str(tmp_path / "empty")
    for arguments in (
        ["run", "absent.yaml"],
        ["report", "absent"],
        ["report", empty],
        ["compare", "absent", empty],
        ["compare", empty, empty],
        ["compare-items", empty, "rwkv4-169m", "pythia-160m"],
    ):
        assert call(monkeypatch, *arguments) == 2
        err = capsys.readouterr().err
        assert err.startswith("rwkv-bench: ") and err.count("\n") == 1


def test_the_page_tells_what_is_of_an_older_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from bench.experiments import VERSIONS

    old = make.cell("kernels", "rwkv4-169m", {"tokens": 3}, version=0)
    Store(tmp_path / "store").write(make.record(old, status="unsupported", error="so"))
    assert call(monkeypatch, "report", str(tmp_path / "store"), "--out", str(tmp_path / "page")) == 0
    said = f"1 is of an older version of its experiment (kernels 0, now {VERSIONS['kernels']})"
    assert said in (tmp_path / "page" / "report.md").read_text()


def test_compare_is_an_alarm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name, step in (("before", 0.1), ("after", 0.3)):
        Store(tmp_path / name).write(test_page.record("rwkv4-169m", step=step))
    Store(tmp_path / "other").write(test_zeroshot.record("rwkv4-169m", "piqa", 0.5))
    before, after, other = (str(tmp_path / name) for name in ("before", "after", "other"))
    assert call(monkeypatch, "compare", before, after, "--out", str(tmp_path / "all.csv")) == 1
    assert "slower" in capsys.readouterr().out and (tmp_path / "all.csv").is_file()
    assert call(monkeypatch, "compare", after, before) == 0
    assert "faster" in capsys.readouterr().out
    assert call(monkeypatch, "compare", before, before, "--all", "--only", "protocol=fair") == 0
    assert "no difference shown inference" in capsys.readouterr().out
    for arguments in ([before, other], [before, after, "--only", "bloom"]):
        assert call(monkeypatch, "compare", *arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith("rwkv-bench: nothing in common") and said.count("\n") == 1


def test_doctor_and_records_name_what_the_process_may_use(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from bench import doctor, run
    from reports.records import provenance
    from rwkv_core import machine

    monkeypatch.setattr(machine, "cpu_quota", lambda: 1.5)
    monkeypatch.setattr(machine, "total_memory", lambda: 3 << 30)
    monkeypatch.setattr(machine, "free_memory", lambda: 1 << 30)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.setattr(doctor, "BANDWIDTH_BYTES", 8 << 20)
    monkeypatch.setattr(doctor.constants, "HF_HUB_OFFLINE", True)
    assert call(monkeypatch, "doctor") == 0
    shown = capsys.readouterr().out
    assert "1 cores (a quota of 1.5 CPUs), torch uses 1 threads" in shown
    assert "1.0 GiB free of 3.0" in shown
    assert run.threads() == 1
    facts = provenance.collect(None)
    assert (facts["cores"], facts["memory_bytes"]) == (1, 3 << 30) and facts["machine"] == f"{facts['cpu']}, 1 cores"


def test_what_a_terminal_cannot_show_ends_no_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from bench import run

    def refuse(*_: object, **__: object) -> None:
        raise BadInput("no tokens for the character \u00e9")

    shown = io.BytesIO()
    monkeypatch.setattr(run, "load", refuse)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii", write_through=True))
    matrix = tmp_path / "m.yaml"
    matrix.write_text("runs: [{experiment: context, model: pocket-rwkv4, text: pocket}]")
    assert call(monkeypatch, "run", str(matrix), "--store", str(tmp_path / "store")) == 1
    assert b"no tokens for the character \\xe9" in shown.getvalue() and b"1 failed" in shown.getvalue()


def test_no_memory_for_the_command_itself_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> None:
        raise MemoryError

    monkeypatch.setattr(cli, "app", refuse)
    assert call(monkeypatch, "plan", "m.yaml") == 2
    said = capsys.readouterr().err
    assert said.startswith("rwkv-bench: no memory left") and said.count("\n") == 1


def test_doctor_says_what_this_machine_can_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench import doctor

    monkeypatch.setattr(doctor, "BANDWIDTH_BYTES", 8 << 20)
    monkeypatch.setattr(doctor.constants, "HF_HUB_OFFLINE", True)
    assert call(monkeypatch, "doctor") == 0
    shown = capsys.readouterr().out
    for word in (
        "python",
        "torch",
        "threads",
        "memory bandwidth",
        "GB/s",
        "gpu",
        "compiler",
        "triton",
        "hub",
        "inference",
    ):
        assert word in shown


def test_advice_is_from_this_machine_or_says_whose(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    store.write(record("rwkv4-169m", 0.05))
    store.write(measured_elsewhere(record("pythia-160m", 0.05), machine="Another CPU"))
    arguments = ["advise", "--context", "2000", "--memory", "16GB", "--from", str(tmp_path / "store")]
    assert call(monkeypatch, *arguments) == 0
    shown = capsys.readouterr().out
    assert "another machine" in shown and "RWKV-4 169M" in shown and "tasks, published)" in shown
    monkeypatch.setattr("reports.records.provenance.machine_name", lambda accelerator: "Another CPU")
    assert call(monkeypatch, *arguments) == 0
    shown = capsys.readouterr().out
    assert "this machine." in shown and "Pythia 160M" in shown and "RWKV-4" not in shown
    for wrong, line in (
        (["--memory", "16"], "--memory '16': write a number and one of MB"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--device", "cuda"], "no records of the experiment decode on cuda"),
    ):
        assert call(monkeypatch, *arguments, *wrong) == 2
        assert line in capsys.readouterr().err
