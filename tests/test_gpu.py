"""`make gpu` without a GPU: the rehearsal of all of it, and what the queue does with time, failures and hangs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench import run
from reports import page
from reports.records import provenance
from reports.records.cell import Cell
from reports.records.record import Record
from reports.records.store import Store
from rwkv_core.errors import BadInput
from tests.gpu import __main__ as entry
from tests.gpu import steps, work
from tests.gpu.steps import Step
from tests.gpu.work import Queue

ROOT = Path(__file__).resolve().parents[1]
MATRIX = """
runs:
  - experiment: kernels
    model: rwkv4-169m
    weights: random:0
    batch: [3, 4]
    tokens: [4, 3]
    rounds: 3
"""
FAILING = (3, 3)  # batch and tokens of the cell that fails


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("REHEARSE", "LIST"):
        monkeypatch.delenv(name, raising=False)
    assert entry.main() == 1
    assert "no CUDA device" in capsys.readouterr().out


def test_the_rehearsal_runs_every_step_and_its_store_makes_a_page(tmp_path: Path) -> None:
    environment = {**os.environ, "REHEARSE": "1", "RESULTS": str(tmp_path), "LIST": "", "BUDGET": ""}
    environment |= {
        "TORCHDYNAMO_DISABLE": "1",
        "NUMBA_DISABLE_JIT": "1",
    }  # loops that no GPU runs take minutes to compile
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    queue = Queue(steps.STEPS, tmp_path, "rehearsal", time.monotonic(), rehearse=True)
    assert len(queue.records) > 30 and all(record.measured for record in queue.records.values())
    for step in steps.STEPS:
        if lacking := queue.lacks(step):
            assert f"{step.name}: not here: {lacking}" in done.stdout
        elif step.command:
            assert (queue.folder / f"{step.name}.txt").stat().st_size
        assert queue.lacks(step) or not queue.left(step)
    assert not queue.lacks(steps.STEPS[0]) and "3 of 3 cases are right" in (queue.folder / "proofs.txt").read_text()

    with tarfile.open(queue.folder.with_suffix(".tgz")) as archive:
        packed = {name.rpartition("/")[2] for name in archive.getnames()}
    assert packed >= {f"{id_}.json" for id_ in queue.records} | {"proofs.txt", "tests.txt", "journal.jsonl"}
    lines = list(page.write([queue.folder], tmp_path / "page"))
    text = (tmp_path / "page" / "report.md").read_text()
    assert "page:" in lines[-1] and "## Generation against context" in text and "WKV kernels" in text
    assert "Cells without a number" not in text


def test_it_starts_without_what_a_bare_machine_lacks(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules |= dict.fromkeys(['lm_eval', 'datasets', 'fla', 'pytest', 'typer', 'rwkv']);"
        "import tests.gpu.proofs, tests.gpu.__main__, bench.launch.__main__, rwkv_core.runtimes.hf, reports.page;"
        "sys.exit(tests.gpu.__main__.main())"
    )
    environment = {**os.environ, "REHEARSE": "1", "LIST": "1", "RESULTS": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    states = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert "not here: lm_eval" in states["zeroshot"] and "not here: pytest" in states["tests"]
    assert "0 of 1 done" in states["proofs"] and "not here" not in states["training"]


class Pretended:
    """In place of bench.launch.process.Process: what was measured, and how it ends."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.ending: Callable[[Cell, float], Record] = self.fail_one

    def __call__(self) -> Pretended:
        return self

    def __enter__(self) -> Pretended:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def end(self) -> None:
        pass

    def measure(self, cell: Cell, seconds: float) -> Record:
        self.asked.append((cell.params["batch"], cell.params["tokens"]))
        return self.ending(cell, seconds)

    def fail_one(self, cell: Cell, seconds: float) -> Record:
        return run.without_result(cell, "failed" if self.asked[-1] == FAILING else "unsupported", "so")


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    pretended = Pretended()
    monkeypatch.setattr(work, "Process", pretended)
    return pretended


def queue_of(tmp_path: Path, *queued: Step, seconds: float = 60.0) -> Queue:
    (tmp_path / "four.yaml").write_text(MATRIX)
    return Queue(queued, tmp_path, "Test GPU 80GB", time.monotonic() + seconds, rehearse=False)


def cells(tmp_path: Path, **more: int) -> Step:
    return Step("cells", 10, 50, str(tmp_path / "four.yaml"), **more)  # type: ignore[arg-type]


def test_a_cell_that_fails_is_tried_twice_and_the_others_go_on(tmp_path: Path, process: Pretended) -> None:
    assert queue_of(tmp_path, cells(tmp_path)).run() == 1
    assert process.asked == [(3, 4), (3, 3), (4, 4), (4, 3), (3, 3)]
    first = list(process.asked)
    queue = queue_of(tmp_path, cells(tmp_path))
    assert queue.run() == 1 and process.asked == first, "what has failed twice is left alone"
    assert [queue.records[name].status for name in queue.failed(queue.steps[0])] == ["failed"]
    assert queue.folder.name == "gpu-test-gpu-80gb"


def test_a_cell_that_the_call_had_no_time_for_is_not_a_failure(
    tmp_path: Path, process: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "LEAST_S", 0.01)

    def hang(cell: Cell, seconds: float) -> Record:
        time.sleep(seconds)
        return run.without_result(cell, "failed", "ended")

    process.ending = hang
    for _ in range(3):
        queue = queue_of(tmp_path, cells(tmp_path), seconds=0.1)
        assert queue.run() == 3
        assert not queue.records and len(queue.left(queue.steps[0])) == 4
    assert process.asked == [(3, 4)] * 3


def test_nothing_goes_into_the_gallery_from_code_that_no_commit_holds(
    tmp_path: Path, process: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    gallery = tmp_path / provenance.GALLERY
    gallery.mkdir(parents=True)
    with pytest.raises(BadInput, match="in the gallery"):
        queue_of(gallery, cells(tmp_path)).run()
    assert not process.asked and [path.name for path in gallery.iterdir()] == ["four.yaml"]


def test_each_step_has_its_turn_before_the_first_goes_on(
    tmp_path: Path, process: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "LEAST_S", 1)
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def slow(cell: Cell, seconds: float) -> Record:
        clock[0] += 20
        return run.without_result(cell, "unsupported", "so")

    process.ending = slow
    (tmp_path / "other.yaml").write_text(MATRIX.replace("[3, 4]", "7").replace("[4, 3]", "7"))
    other = Step("other", 10, 50, str(tmp_path / "other.yaml"))
    assert queue_of(tmp_path, cells(tmp_path), other, seconds=500).run() == 0
    assert process.asked == [(3, 4), (3, 3), (4, 4), (7, 7), (4, 3)]


def command(tmp_path: Path, name: str, code: str, bound_s: int = 30, source: str = "") -> Step:
    (tmp_path / f"{name}.py").write_text(code)
    return Step(name, 1, bound_s, command=(name,), sources=(source,) if source else ())


def test_commands_are_kept_ended_and_run_again(
    tmp_path: Path, process: Pretended, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "source.txt").write_text("1")
    hangs = (
        "import pathlib, subprocess, sys, time;"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
        "pathlib.Path('child').write_text(str(child.pid)); print('FAIL of a case', flush=True); time.sleep(60)"
    )
    queued = (
        command(tmp_path, "hanging", hangs, bound_s=2),
        command(tmp_path, "proving", "print('all is right')", source="source.txt"),
        command(tmp_path, "long", "", bound_s=100),
    )
    queue = queue_of(tmp_path, *queued)
    assert queue.run() == 3
    said = capsys.readouterr().out
    assert said.count("not done after 2 s") == 2 and "FAIL of a case" in said and "long: it would not fit" in said
    assert (queue.folder / "proving.txt").read_text() == "all is right\n"
    alive = Path(f"/proc/{(tmp_path / 'child').read_text()}/stat")
    assert not alive.is_file() or alive.read_text().split()[2] == "Z", "what a step has started ends with it"
    assert [len(queue.left(step)) for step in queued] == [0, 0, 1] and queue.failed(queued[0])
    (tmp_path / "source.txt").write_text("2")
    assert len(queue_of(tmp_path, *queued).left(queued[1])) == 1, "another source is another proof"


def test_the_archive_leaves_out_items_before_it_is_too_large(
    tmp_path: Path, process: Pretended, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    queue = queue_of(tmp_path, cells(tmp_path))
    queue.run()
    record = next(iter(queue.records.values()))
    items = [{"doc": os.urandom(20).hex()} for _ in range(3000)]
    queue.store.write(Record(record.cell, "ok", {}, {"items": items}, provenance=record.provenance))
    monkeypatch.setattr(work, "ARCHIVE_BYTES", 20_000)
    queue.pack()
    with tarfile.open(queue.folder.with_suffix(".tgz")) as archive:
        assert not [name for name in archive.getnames() if "items" in name] and len(archive.getnames()) >= 4
    assert "without the items" in capsys.readouterr().out
    before = queue.folder.with_suffix(".tgz").read_bytes()
    monkeypatch.setattr(work, "ARCHIVE_BYTES", 100)
    queue.pack()
    assert "not written" in capsys.readouterr().out and queue.folder.with_suffix(".tgz").read_bytes() == before
    assert Store(queue.folder).read()[1] == {} and json.loads(queue.journal.read_text().splitlines()[0])["event"]
