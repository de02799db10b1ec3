"""The matrix of tasks through the command line: data of this machine, faults beside whole cells, resume."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import cli, matrix
from bench.cells import arguments
from reports.records.store import Store
from rwkv_core.errors import BadInput
from tests.evals import world

ROOT = Path(__file__).resolve().parents[2]
MATRIX = """
runs:
  - experiment: zeroshot
    model: [pythia-14m]
    weights: random:0
    task: [arc_easy, copa, sciq]
    protocol: [v0.4, v0.3]
    docs: 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tasks.yaml"
    path.write_text(MATRIX)
    return path


@pytest.fixture
def given(tmp_path: Path) -> dict[str, str]:
    world.write(tmp_path / "data")
    return {"data": str(tmp_path / "data"), "tokenizer": str(world.tokenizer(tmp_path / "tokenizer.json"))}


@pytest.fixture
def command(
    file: Path, given: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[], tuple[int, str, str]]:
    """Runs the matrix as the command line does, but here, where lm-eval is imported once: exit code, stdout, stderr."""
    files = ["--data-dir", given["data"], "--tokenizer", given["tokenizer"]]
    monkeypatch.setattr(sys, "argv", ["rwkv-bench", "run", str(file), "--store", str(file.parent / "store"), *files])

    def run() -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


def test_a_cell_is_its_content_and_not_where_it_lies(file: Path, given: dict[str, str], tmp_path: Path) -> None:
    before = matrix.read(file, given)
    (tmp_path / "data").rename(tmp_path / "moved")
    moved = {**given, "data": str(tmp_path / "moved")}
    after = matrix.read(file, moved)
    assert [cell.id for cell in before] == [cell.id for cell in after]
    assert arguments(after[0])["data"] == moved["data"] and after[0].params["data"].startswith("local:")
    assert str(tmp_path) not in json.dumps(after[0].to_json())
    path = tmp_path / "moved" / "copa" / "validation.jsonl"
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")
    changed = {cell.params["task"] for cell, old in zip(matrix.read(file, moved), before, strict=True) if cell != old}
    assert changed == {"copa"}
    assert matrix.read(file)[0].params["data"] == "hub"


def test_a_broken_task_leaves_the_others_and_a_second_run_mends_it(
    command: Callable[[], tuple[int, str, str]], tmp_path: Path
) -> None:
    path = tmp_path / "data" / "copa" / "validation.jsonl"
    whole = path.read_text()
    path.write_text("\n".join([whole.splitlines()[0], whole.splitlines()[1][:20]]) + "\n")
    code, out, err = command()
    assert code == 1, err
    assert "copa/validation.jsonl, line 2: broken JSON" in out and "Traceback" not in err
    records, _ = Store(tmp_path / "store").read()
    assert sorted(r.status for r in records) == ["failed"] * 2 + ["ok"] * 4
    path.write_text(whole)
    code, out, _ = command()
    assert code == 0 and "2 ok" in out
    _, out, _ = command()
    assert "nothing to measure: all 6 cells" in out
    records, _ = Store(tmp_path / "store").read(items=True)
    for record in records:
        if record.status == "ok":
            assert len(record.samples["items"]) == 3
            assert record.provenance["versions"]["lm_eval"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MATRIX.replace("arc_easy", "arc_esy"), "unknown task 'arc_esy': did you mean arc_easy?"),
        (MATRIX.replace("    task: [arc_easy, copa, sciq]\n", ""), "zeroshot needs `task`"),
        (MATRIX.replace("v0.3", "v0.2"), "unknown protocol 'v0.2'"),
        (MATRIX + "    data: absent\n", "data 'absent': no such folder"),
        (MATRIX + "    tokenizer: absent\n", "tokenizer 'absent': no such file"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_measured(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        matrix.read(path)
    assert message in str(caught.value)


def test_data_for_a_matrix_that_reads_none() -> None:
    with pytest.raises(BadInput, match="nothing in this matrix reads data"):
        matrix.read(ROOT / "configs" / "inference-cpu.yaml", {"data": "."})


@pytest.mark.parametrize("name", ["zeroshot", "zeroshot-gpu", "zeroshot-random"])
def test_the_matrices_are_whole(name: str) -> None:
    cells = matrix.read(ROOT / "configs" / f"{name}.yaml")
    models = {cell.model.name for cell in cells}
    assert len(cells) == len(models) * 12 * len({cell.params["protocol"] for cell in cells})
