"""The rig: resume after kills, statuses, skipping; real processes on the smallest model."""

import dataclasses
import functools
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from bench import cli, matrix, run, schedule
from bench.experiments import EXPERIMENTS
from bench.launch import LAUNCHERS, Launcher, here, process
from bench.speed import inference
from reports.records import provenance
from reports.records.cell import Cell
from reports.records.record import Record, Status
from reports.records.store import Store
from rwkv_core.errors import BadInput, Unsupported
from rwkv_core.wkv.wkv4 import WKV4
from tests import make

ROOT = Path(__file__).resolve().parents[2]
MATRIX = """
runs:
  - experiment: inference
    model: pythia-14m
    weights: random:0
    protocol: [fair, paper]
    prompt_tokens: 4
    new_tokens: {lengths}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(MATRIX.format(lengths="[4, 6]"))
    return path


def command(path: Path, store: Path) -> list[str]:
    return [sys.executable, "-m", "bench.cli", "run", str(path), "--store", str(store)]


def interruptible(call: list[str]) -> subprocess.Popen[str]:
    """`call` started with SIGINT as a terminal has it: a shell's background job, and what it starts, ignores it."""
    return subprocess.Popen(
        call,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def test_killed_at_five_moments_it_goes_on_and_holds_each_cell_once(path: Path, tmp_path: Path) -> None:
    """On a model whose runtime is imported at once, so that most kills meet a measurement."""
    path.write_text(path.read_text().replace("pythia-14m", "recall-rwkv4"))
    store = tmp_path / "store"
    moments = random.Random(0)
    held: list[int] = []
    for kill in range(5):
        process = subprocess.Popen(command(path, store), cwd=ROOT, stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(0.5, 6))
        deadline = time.monotonic() + 120
        while kill == 4 and not list(store.glob("*/*.json")) and time.monotonic() < deadline:
            time.sleep(0.1)  # on a slow machine, until there is something to lose
        process.send_signal(signal.SIGKILL)
        process.wait()
        records, damaged = Store(store).read()
        assert not damaged and all(record.measured for record in records)
        held.append(len(records))
    assert held == sorted(held) and held[-1] > 0, "no kill met a store with something in it"
    done = subprocess.run(command(path, store), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    records, _ = Store(store).read()
    assert {record.id for record in records} == {cell.id for cell in matrix.read(path)}
    assert len(list(store.glob("*/*.json"))) == 4 and not list(store.rglob(".writing-*"))
    kernel = WKV4.choose("auto", torch.device("cpu"), torch.float32)
    for record in records:
        assert len(record.samples["token_seconds"]) == 3
        assert record.provenance["attention"] == f"wkv4:{kernel}" and record.provenance["weights_fingerprint"]
        assert len(record.samples["disturbance"]["intervals"]) == 3
        Store(store).write(
            dataclasses.replace(record, status="ok")
        )  # tests share their cores, and so disturb each other
    again = subprocess.run(command(path, store), cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0 and "nothing to measure" in again.stdout


def test_no_measurement_outlives_its_run(path: Path, tmp_path: Path) -> None:
    path.write_text(MATRIX.format(lengths="[1000]"))  # far longer than the patience below
    process = subprocess.Popen(command(path, tmp_path / "store"), cwd=ROOT, stderr=subprocess.DEVNULL)
    child = _child(process)
    time.sleep(1.5)  # until the child has asked to end with its parent
    process.kill()
    process.wait()
    deadline = time.monotonic() + 2
    while (alive := _alive(child)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive


def _child(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> str:
    """The process id of the measurement, as soon as there is one."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if pids := children.read_text().split():
            return pids[0]
        time.sleep(0.1)
    raise AssertionError("no measurement was started")


def _alive(pid: str) -> bool:
    status = Path(f"/proc/{pid}/status")
    try:
        return "(zombie)" not in status.read_text()
    except OSError:
        return False


def test_ctrl_c_is_one_line_and_130(path: Path, tmp_path: Path) -> None:
    path.write_text(MATRIX.format(lengths="[2000]"))
    process = interruptible(command(path, tmp_path / "store"))
    _child(process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)  # the measurement itself would go on for longer
    assert process.returncode == 130 and "the same command goes on" in err and "Traceback" not in err


def test_two_runs_do_not_measure_into_one_store(path: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with Store(store).locked():
        second = subprocess.run(command(path, store), cwd=ROOT, capture_output=True, text=True)
    assert second.returncode == 2 and "another run is measuring" in second.stderr


def fake(monkeypatch: pytest.MonkeyPatch, statuses: dict[int, str]) -> list[int]:
    """Pretend to measure: the status by new_tokens; the new_tokens that were measured."""
    lengths: list[int] = []

    def launcher(cells: Sequence[Cell], jobs: int) -> Iterator[Record]:
        tokens = cells[0].params["new_tokens"]
        lengths.append(tokens)
        status = statuses.get(tokens, "ok")
        yield run.without_result(cells[0], status, "pretended")  # type: ignore[arg-type]

    monkeypatch.setitem(LAUNCHERS, "alone", Launcher(launcher))
    return lengths


@pytest.mark.parametrize("status", ["oom", "failed"])
def test_longer_cells_of_the_same_model_are_skipped_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, path: Path, tmp_path: Path, status: str
) -> None:
    path.write_text(MATRIX.format(lengths="[16, 4, 8]").replace("[fair, paper]", "fair"))
    lengths = fake(monkeypatch, {8: status})
    selection = schedule.choose(path, tmp_path / "store", "")
    outcome = schedule.execute(selection)
    assert lengths == [4, 8] and outcome.counts == {"ok": 1, status: 2}
    longest = next(r for r in selection.store.read()[0] if r.cell.params["new_tokens"] == 16)
    assert longest.error.startswith(f"not run: {status} already at inference_pythia-14m")
    left = schedule.choose(path, tmp_path / "store", "").pending
    assert len(left) == (2 if status == "failed" else 0)  # what failed is measured again


def test_memory_that_ran_out_in_an_earlier_run_is_remembered(
    monkeypatch: pytest.MonkeyPatch, path: Path, tmp_path: Path
) -> None:
    path.write_text(MATRIX.format(lengths="[8, 16, 4]").replace("[fair, paper]", "fair"))
    lengths = fake(monkeypatch, {8: "oom"})
    assert schedule.execute(schedule.choose(path, tmp_path / "store", ""), limit=1).counts == {"oom": 1}
    assert schedule.execute(schedule.choose(path, tmp_path / "store", "")).counts == {"ok": 1, "oom": 1}
    assert lengths == [8, 4]


def test_processes_of_the_same_work_are_in_turn_with_those_of_other_models(
    monkeypatch: pytest.MonkeyPatch, path: Path, tmp_path: Path
) -> None:
    text = MATRIX.format(lengths="[4]").replace("[fair, paper]", "fair")
    path.write_text(text.replace("model: pythia-14m", "model: [pythia-14m, opt-125m]") + "    process: [1, 2]\n")
    order: list[tuple[str, int]] = []
    status: Status = "unsupported"

    def launcher(cells: Sequence[Cell], jobs: int) -> Iterator[Record]:
        for cell in cells:
            assert cell.model is not None
            order.append((cell.model.name, cell.params["process"]))
            yield run.without_result(cell, status, "pretended")

    monkeypatch.setitem(LAUNCHERS, "alone", Launcher(launcher))
    in_turn = [("pythia-14m", 1), ("opt-125m", 1), ("pythia-14m", 2), ("opt-125m", 2)]
    schedule.execute(schedule.choose(path, tmp_path / "store", ""))
    assert order == in_turn
    status = "disturbed"
    schedule.execute(schedule.choose(path, tmp_path / "other", ""), limit=1)
    order.clear()
    schedule.execute(schedule.choose(path, tmp_path / "other", ""))
    assert order == [*in_turn[1:], in_turn[0]], "what was disturbed comes last"


def test_times_are_measured_again_where_threads_waited_otherwise(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    cell = schedule.choose(path, Path("nowhere"), "").cells[0]
    monkeypatch.setattr(run, "waits", lambda _: "GOMP_SPINCOUNT=1000")
    record = run.without_result(cell, "ok", "")
    for waits, fits in (("GOMP_SPINCOUNT=1000", True), ("OMP_WAIT_POLICY=passive", False)):
        changed = dataclasses.replace(record, provenance={**record.provenance, "waits": waits})
        assert schedule._of_cell(changed, cell) is fits


def disturbances(*reasons: str) -> dict[str, Any]:
    """Samples as a timed experiment returns them, with one interval a reason and one without."""
    intervals = [*({"reasons": {reason: 2.0}} for reason in reasons), {"reasons": {}}]
    return {"disturbance": {"intervals": intervals, "again": 3, "not_watched": []}}


def test_a_disturbed_cell_is_said_and_counted_and_measured_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], path: Path, tmp_path: Path
) -> None:
    reasons = {"fair": ["others used 1.31 of its 2 cores"]}
    measured = []

    @functools.wraps(inference.run)
    def pretended(model: None, *, protocol: str, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        measured.append(protocol)
        return {"parameters": 7}, disturbances(*reasons.get(protocol, []))

    monkeypatch.setitem(EXPERIMENTS, "inference", dataclasses.replace(inference.EXPERIMENT, run=pretended))
    monkeypatch.setitem(LAUNCHERS, "alone", LAUNCHERS["here"])
    monkeypatch.setattr(run, "load", lambda *_, **__: None)
    monkeypatch.setattr(run, "_facts", lambda _: {})
    monkeypatch.setattr(sys, "argv", ["rwkv-bench", "run", str(path), "--store", str(tmp_path / "store")])
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")  # as a fresh process is started
    with pytest.raises(SystemExit) as ended:
        cli.main()
    shown = capsys.readouterr().out
    assert not ended.value.code and "2 disturbed, 2 ok; records in" in shown
    lines = [line for line in shown.splitlines() if line.startswith("disturbed: inference_pythia-14m")]
    assert len(lines) == 2 and lines[0].endswith("1 of 2 intervals, after 3 more; the worst: " + reasons["fair"][0])

    selection = schedule.choose(path, tmp_path / "store", "")
    assert [cell.params["protocol"] for cell in selection.pending] == ["fair", "fair"]
    (record,) = selection.records[selection.pending[0].id]
    assert record.status == "disturbed" and record.metrics and record.samples["disturbance"]["again"] == 3
    measured_id = next(cell.id for cell in selection.cells if cell not in selection.pending)
    next((tmp_path / "store").glob(f"*/{measured_id}.json")).unlink()
    pending = schedule.choose(path, tmp_path / "store", "").pending
    assert [cell.params["protocol"] for cell in pending] == ["paper", "fair", "fair"]  # what has no number first
    reasons.clear()
    assert schedule.execute(schedule.choose(path, tmp_path / "store", "")).counts == {"ok": 3}
    assert len(measured) == 7 and not schedule.choose(path, tmp_path / "store", "").pending


def test_a_cell_whose_items_are_damaged_is_measured_again(
    monkeypatch: pytest.MonkeyPatch, path: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    cell = matrix.read(path)[0]
    store.write(make.record(cell, {}, {"items": [{"doc": 0}]}, machine=provenance.machine_name(None)))
    assert cell not in schedule.choose(path, store.folder, "").pending
    (packed,) = store.folder.glob("*/*.items.jsonl.gz")
    packed.write_bytes(packed.read_bytes()[:-1] + b"?")
    lengths = fake(monkeypatch, {})
    schedule.execute(schedule.choose(path, store.folder, cell.id))
    assert lengths == [cell.params["new_tokens"]]
    assert schedule.choose(path, store.folder, cell.id).pending == []
    assert len(list(store.folder.glob("*/damaged/*"))) == 2


def test_only_and_unsupported(monkeypatch: pytest.MonkeyPatch, path: Path, tmp_path: Path) -> None:
    lengths = fake(monkeypatch, {4: "unsupported"})
    for axis in ("device=cpu", "threads=0", "runtime=transformers", "weights=random:0"):
        assert len(schedule.choose(path, tmp_path / "store", axis).cells) == 4
    selection = schedule.choose(path, tmp_path / "store", "protocol=fair")
    assert len(selection.cells) == 2
    schedule.execute(selection)
    assert sorted(lengths) == [4, 6]
    with pytest.raises(BadInput, match="none of the 4 cells"):
        schedule.choose(path, tmp_path / "store", "llama")


def test_a_gpu_that_is_not_here_is_no_finding(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path.write_text(path.read_text() + "    device: cuda\n")
    selection = schedule.choose(path, tmp_path / "store", "")
    with pytest.raises(BadInput, match="no CUDA device"):
        schedule.execute(selection)
    assert not selection.store.read()[0]


def cell(path: Path) -> Cell:
    return matrix.read(path)[0]


def test_a_killed_process_is_a_record(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    killer = f"import os, signal; os.kill(os.getpid(), {int(signal.SIGKILL)})"
    real = subprocess.Popen

    def popen(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        return real([sys.executable, "-c", killer], **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(subprocess, "Popen", popen)
    (record,) = process.alone([cell(path)], 1)
    assert record.status == "failed" and "SIGKILL" in record.error
    kills = iter([3, 4])
    monkeypatch.setattr(process, "_oom_kills", lambda: next(kills))
    (record,) = process.alone([cell(path)], 1)
    assert record.status == "oom"


def test_errors_become_statuses(path: Path) -> None:
    cases = {
        "unsupported": [Unsupported("no")],
        "oom": [
            MemoryError("x"),
            torch.OutOfMemoryError("x"),
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        ],
        "failed": [ValueError("two\nlines"), BadInput("bad")],
    }
    for status, errors in cases.items():
        for error in errors:
            record = run.failed(cell(path), error)
            assert record.status == status and "\n" not in record.error
    assert not run.failed(cell(path), BadInput("bad")).traceback
    assert "ValueError" in run.failed(cell(path), ValueError()).error


def test_here_loads_a_model_once_for_all_cells(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    loads = []
    real = run.load
    monkeypatch.setattr(run, "load", lambda *args, **more: loads.append(1) or real(*args, **more))
    records = list(here(matrix.read(path)[:2], 1))
    assert all(record.measured for record in records) and len(records) == 2 and len(loads) == 1
    assert {record.provenance["attention"] for record in records} == {"sdpa or C"}


def test_the_code_runs_from_its_root_without_being_installed(path: Path, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    code = (
        "import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f)];"
        "sys.path.insert(0, '.'); import json; from pathlib import Path;"
        "from bench import matrix; from bench.launch import process;"
        f"(r,) = process.alone(matrix.read(Path({str(path)!r}))[:1], 1); print(json.dumps(r.metrics))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and json.loads(done.stdout)["parameters"] == 14067712, done.stderr


RECALL = """
runs:
  - {experiment: recall, model: recall-rwkv4, task: query_last, size: [1, 2], learning_rate: 1.0e-2, weights: "fresh:0",
     steps: STEPS, batch: 16, test: 16}
"""


def test_side_by_side_measures_the_same(tmp_path: Path) -> None:
    path = tmp_path / "schedule.yaml"
    path.write_text(RECALL.replace("STEPS", "10"))
    selection = schedule.choose(path, tmp_path / "store", "")
    outcome = schedule.execute(selection, jobs=2)
    assert outcome.counts == {"ok": 2}
    beside = {record.id: record for record in selection.store.read()[0]}
    for record in here(selection.cells, 1):
        assert beside[record.id].samples["loss"] == pytest.approx(record.samples["loss"], abs=1e-4)


def test_ctrl_c_ends_what_is_measured_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "schedule.yaml"
    path.write_text(RECALL.replace("STEPS", "100000"))
    process = interruptible([*command(path, tmp_path / "store"), "--jobs", "2"])
    while not (busy := [c for c in psutil.Process(process.pid).children() if c.cpu_times().user > 3]):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command goes on" in err and "Traceback" not in err
    assert not any(child.is_running() for child in busy)


def test_what_is_timed_is_never_measured_beside_another(
    monkeypatch: pytest.MonkeyPatch, path: Path, tmp_path: Path
) -> None:
    lengths = fake(monkeypatch, {})
    monkeypatch.delitem(LAUNCHERS, "beside")  # would be looked up in vain
    assert schedule.execute(schedule.choose(path, tmp_path / "store", ""), jobs=2).counts == {"ok": 4}
    assert len(lengths) == 4


MIXED = """
runs:
  - {experiment: inference, model: pythia-14m, weights: random:0, prompt_tokens: 4, new_tokens: [8, 4]}
  - {experiment: recall, model: recall-rwkv4, task: query_last, size: [1, 2], learning_rate: 1.0e-2, weights: "fresh:0"}
  - {experiment: pretrain, model: pocket-rwkv4, weights: "fresh:0", text: pocket, tokenizer: pocket, steps: 1,
     learning_rate: 1.0e-3, final_learning_rate: 1.0e-4, processes: [2, 1]}
"""


def test_each_launcher_is_given_its_cells_at_once_or_model_by_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "schedule.yaml"
    path.write_text(MIXED)
    batches: list[tuple[str, list[int]]] = []

    def pretended(name: str) -> Callable[[Sequence[Cell], int], Iterator[Record]]:
        def launcher(cells: Sequence[Cell], jobs: int) -> Iterator[Record]:
            parameter = {"inference": "new_tokens", "recall": "size", "pretrain": "processes"}
            batches.append((name, [cell.params[parameter[cell.experiment]] for cell in cells]))
            yield from (run.without_result(cell, "unsupported", "pretended") for cell in cells)

        return launcher

    for name, launcher in LAUNCHERS.items():
        monkeypatch.setitem(LAUNCHERS, name, launcher._replace(measure=pretended(name)))
    for jobs in (1, 2):
        outcome = schedule.execute(schedule.choose(path, tmp_path / str(jobs), ""), jobs=jobs)
        assert outcome.counts == {"unsupported": 6}
    timed = [("alone", [4]), ("alone", [8])]
    assert batches[:5] == [*timed, ("here", [1, 2]), ("together", [2]), ("here", [1])]
    assert batches[5:] == [("beside", [1, 2, 1]), *timed, ("together", [2])]


def test_a_killed_process_among_several_ends_the_run_and_says_how_to_go_on(tmp_path: Path) -> None:
    path = tmp_path / "schedule.yaml"
    path.write_text(RECALL.replace("STEPS", "100000"))

    def kill() -> None:
        while not (
            busy := [c for c in multiprocessing.active_children() if psutil.Process(c.pid).cpu_times().user > 3]
        ):
            time.sleep(0.1)
        busy[0].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(BadInput, match="the same command goes on, with fewer --jobs"):
        schedule.execute(schedule.choose(path, tmp_path / "store", ""), jobs=2)
    killer.join()
