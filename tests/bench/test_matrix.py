"""Matrices -> cells, and every way to get one wrong."""

import dataclasses
import json
import pickle
from pathlib import Path

import pytest

from bench import cells, matrix
from bench.cells import larger
from reports.records.cell import Cell
from rwkv_core.errors import BadInput

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
LISTS = ("models", "tasks")  # what matrices name, no matrices themselves


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "matrix.yaml"
    path.write_text(text)
    return path


def one(**more: object) -> str:
    return json.dumps({"runs": [{"experiment": "inference", "model": "pythia-14m", "weights": "random:0", **more}]})


@pytest.mark.parametrize(
    "path", [p for p in CONFIGS.glob("*.yaml") if "\nruns:" in p.read_text()], ids=lambda p: p.stem
)
def test_the_matrices_of_the_project_are_valid(path: Path) -> None:
    assert matrix.read(path)


def test_every_list_is_an_axis_and_models_stay_together(tmp_path: Path) -> None:
    path = write(tmp_path, one(model=["pythia-14m", "rwkv4-169m"], protocol=["fair", "paper"], new_tokens=[8, 4, 8]))
    planned = matrix.read(path)
    assert len(planned) == len({cell.id for cell in planned}) == 8
    assert [cell.model.name for cell in planned] == ["pythia-14m"] * 4 + ["rwkv4-169m"] * 4
    assert {cell.params["repeats"] for cell in planned} == {3}
    assert all(Cell.from_json(json.loads(json.dumps(cell.to_json()))) == cell for cell in planned)


def test_an_id_changes_with_whatever_is_measured(tmp_path: Path) -> None:
    variants = [{}, {"seed": 1}, {"weights": "random:1"}, {"dtype": "bfloat16"}, {"attention": "eager"}, {"batch": 2}]
    variants += [{"cache": "dynamic"}]
    ids = {matrix.read(write(tmp_path, one(**variant)))[0].id for variant in variants}
    assert len(ids) == len(variants)


def test_an_id_goes_with_a_cell_to_other_processes_and_not_with_what_is_made_of_it(tmp_path: Path) -> None:
    (cell,) = matrix.read(write(tmp_path, one()))
    there = pickle.loads(pickle.dumps(cell))  # noqa: S301 - our own
    assert there == cell and there.id == cell.id and hash(there) == hash(cell)
    longer = cells.changed(cell, new_tokens=5)
    assert longer != cell and longer.id != cell.id and "new_tokens=5" in longer.id
    assert Cell.from_json(cell.to_json()).id == cell.id
    with pytest.raises(ValueError, match="its id is"):
        Cell.from_json({**cell.to_json(), "device": "cuda"})


def test_an_id_is_made_of_what_was_measured_and_of_nothing_else(tmp_path: Path) -> None:
    (cell,) = matrix.read(write(tmp_path, one(batch=2)))
    assert cell.differing == ("batch",) and "batch=2" in cell.id and "repeats" not in cell.id
    assert cell.model
    spec = {"label": "another", "family": "x", "parameters": 3, "trained_on": "pocket", "repo": "x/y", "revision": "z"}
    same = [dataclasses.replace(cell, model=dataclasses.replace(cell.model, **{key: spec[key]})) for key in spec]
    same.append(dataclasses.replace(cell, params={**cell.params, "new": 1}))  # a parameter that came later
    same.append(dataclasses.replace(cell, paths={"weights": "/elsewhere"}))
    assert {one.id for one in same} == {cell.id}
    of_a_path = dataclasses.replace(cell, model=dataclasses.replace(cell.model, weights="results/mine"))
    assert "/" not in of_a_path.id  # as records of the first versions have it
    changes = {"context_length": 7, "runtime": "native", "cache": "dynamic", "name": "x", "weights": "pretrained"}
    other = [dataclasses.replace(cell, model=dataclasses.replace(cell.model, **{key: changes[key]})) for key in changes]
    other += [dataclasses.replace(cell, threads=1), dataclasses.replace(cell, version=9)]
    pretrained = other[4].model
    assert pretrained
    other += [dataclasses.replace(cell, model=dataclasses.replace(pretrained, revision="z"))]
    assert len({one.id for one in [cell, *other]}) == len(other) + 1


def test_what_two_runs_have_in_common_is_one_cell_with_the_first_ones_files(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights.pth").write_bytes(b"the same")
    runs = [json.loads(one(weights=str(tmp_path / name / "weights.pth")))["runs"][0] for name in ("first", "second")]
    (cell,) = matrix.read(write(tmp_path, json.dumps({"runs": runs})))
    assert cell.paths == {"weights": str(tmp_path / "first" / "weights.pth")}


def test_an_id_with_its_ending_is_a_name_that_a_file_may_have(tmp_path: Path) -> None:
    run = {"experiment": "lra", "seed": [0, 1], "task": "listops"}
    run |= {"mixer": "nystromformer", "learning_rate": 0.003, "weight_decay": 0.01, "dropout": 0.1, "warmup": 0.2}
    run |= {"protocol": "pocket", "train_count": 20000, "validation_count": 1000, "test_count": 2000}
    run |= {"length": 256, "layers": 2, "width": 48, "inner": 192, "steps": 1500, "eval_every": 150}
    planned = matrix.read(write(tmp_path, json.dumps({"runs": [run]})))
    first, second = (f"{cell.id}.items.jsonl.gz" for cell in planned)
    assert first != second
    (tmp_path / first).touch()


@pytest.mark.parametrize(
    "text,message",
    [
        ("runs: [", "not valid YAML"),
        ("- a\n- b\n", "a matrix is a mapping"),
        ("", "a matrix is a mapping"),
        ("runs: []\nextra: 1\n", "a matrix is a mapping"),
        ("runs: [7]", "run 1: must be a mapping"),
        (one(experiment="inferense"), "unknown experiment 'inferense': did you mean inference"),
        (one(experiment=["inference"]), "unknown experiment ['inference']"),
        (one(model="pythia-16m"), "unknown model 'pythia-16m': did you mean pythia-1"),
        (one(new_token=4), "no parameter 'new_token': did you mean new_tokens"),
        (one(device="cdua"), "unknown device 'cdua': did you mean cuda"),
        (one(dtype="float23"), "unknown dtype 'float23': did you mean float32"),
        (one(protocol="fare"), "unknown protocol 'fare': did you mean fair"),
        (one(attention="flash"), "unknown attention"),
        (one(cache="dynamical"), "unknown cache 'dynamical': did you mean dynamic"),
        (one(weights="random:"), "random:SEED"),
        (one(threads=-1), "threads must be a whole number"),
        (one(threads="all"), "threads must be a whole number"),
        (
            "runs: [{experiment: encoders, mixer: rwkv4, model: rwkv4-169m}]",
            "needs no model, so that `model` says nothing",
        ),
        (one(repeats=2), "repeats must be at least 3"),
        (one(batch=True), "batch must be a value of type int"),
        (one(batch=1.5), "batch must be a value of type int"),
        (one(model=[]), "model is an empty list"),
        (one(weights=None), "weights None: write pretrained"),
        (one(weights="./absent.pth"), "no such file or folder"),
        ("runs: []", "a matrix is a mapping"),
        ('runs: [{"experiment": "inference"}]', "`model` is missing"),
        ("runs: !!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_one_line_naming_the_file(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(BadInput) as caught:
        matrix.read(path)
    assert message in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_weights_are_found_from_wherever_a_cell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    cell = matrix.read(write(tmp_path, one(weights="mine")))[0]
    assert cells.spec(cell).weights == str(tmp_path / "mine") and cell.model.weights.startswith("file:")


def test_a_recurrent_model_has_no_attention_to_choose(tmp_path: Path) -> None:
    planned = matrix.read(write(tmp_path, one(model=["rwkv4-169m", "pythia-14m"], attention=["default", "eager"])))
    assert [(c.model.name, c.model.attention) for c in planned] == [
        ("rwkv4-169m", "default"),
        ("pythia-14m", "default"),
        ("pythia-14m", "eager"),
    ]


def test_a_recurrent_model_has_no_cache_to_choose(tmp_path: Path) -> None:
    planned = matrix.read(write(tmp_path, one(model=["rwkv4-169m", "pythia-14m"], cache=["preallocated", "dynamic"])))
    assert [(c.model.name, c.model.cache) for c in planned] == [
        ("rwkv4-169m", "preallocated"),
        ("pythia-14m", "preallocated"),
        ("pythia-14m", "dynamic"),
    ]
    assert [Cell.from_json(json.loads(json.dumps(cell.to_json()))) for cell in planned] == planned


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        matrix.read(tmp_path / "absent.yaml")


def test_larger_than(tmp_path: Path) -> None:
    planned = matrix.read(write(tmp_path, one(new_tokens=[4, 8], batch=[1, 2], protocol=["fair", "paper"])))

    def find(new_tokens: int, batch: int, protocol: str = "fair") -> Cell:
        wanted = {"new_tokens": new_tokens, "batch": batch, "protocol": protocol}
        return next(cell for cell in planned if wanted.items() <= cell.params.items())

    assert larger(find(8, 1), find(4, 1)) and larger(find(8, 2), find(4, 1))
    assert not larger(find(4, 1), find(8, 1)) and not larger(find(4, 2), find(8, 1))
    assert not larger(find(8, 1, "paper"), find(4, 1)) and not larger(find(4, 1), find(4, 1))
