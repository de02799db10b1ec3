"""A cell is named by the content of all that it reads, and is measured only of that content."""

import dataclasses
import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import matrix, run, schedule
from bench.cells import arguments, check_files, spec
from bench.experiments import EXPERIMENTS
from evals.lra.run import _identify as identify_lra
from evals.pocket.make import TOKENIZER_FILE
from evals.prompts import tasks as prompts
from evals.prompts.run import identify_data as identify_prompts
from evals.zeroshot import tasks
from reports.records.cell import Cell
from reports.records.record import Record
from rwkv_core import content, files, models
from rwkv_core.errors import BadInput
from rwkv_core.spec import ModelSpec
from tests.evals import world

CHECKPOINTS = TOKENIZER_FILE.parent


@pytest.fixture
def pth(tmp_path: Path) -> Path:
    """A checkpoint of the pocket RWKV with its tokenizer beside it."""
    from safetensors.torch import load_file

    folder = tmp_path / "somebody" / "weights"
    folder.mkdir(parents=True)
    torch.save(load_file(CHECKPOINTS / "pocket-rwkv4" / "model.safetensors"), folder / "last.pth")
    shutil.copy(TOKENIZER_FILE, folder)
    return folder / "last.pth"


def cells(tmp_path: Path, **run: Any) -> list[Cell]:
    defaults = {"experiment": "zeroshot", "model": "pocket-rwkv4", "task": "piqa", "data": "pocket", "docs": 40}
    path = tmp_path / "schedule.yaml"
    path.write_text(json.dumps({"runs": [{**defaults, **run}]}))
    return matrix.read(path)


def one(tmp_path: Path, **run: Any) -> Cell:
    (cell,) = cells(tmp_path, **run)
    return cell


def measured(cell: Cell) -> Record:
    (record,) = run.measure([cell])
    return record


def test_a_checkpoint_under_the_same_name_is_measured_anew(tmp_path: Path, pth: Path) -> None:
    right = measured(one(tmp_path, weights=str(pth)))
    weights = torch.load(pth, weights_only=True)
    noise = torch.Generator().manual_seed(0)
    torch.save({k: v + 0.2 * torch.randn(v.shape, generator=noise).to(v.dtype) for k, v in weights.items()}, pth)
    wrong = measured(one(tmp_path, weights=str(pth)))
    assert (right.metrics["acc"], wrong.metrics["acc"]) == (1.0, 0.675)
    assert right.id != wrong.id
    for record in (right, wrong):
        assert "somebody" not in record.to_json() and record.cell.model.weights.startswith("file:")
        assert record.cell.model.weights in record.id  # the readable part tells two files apart


def test_the_same_checkpoint_elsewhere_is_the_same_cell(tmp_path: Path, pth: Path) -> None:
    before = one(tmp_path, weights=str(pth))
    pth.parent.rename(tmp_path / "moved")
    (tmp_path / "moved" / "last.pth").rename(tmp_path / "moved" / "final.pth")
    after = one(tmp_path, weights=str(tmp_path / "moved" / "final.pth"))
    assert before == after and before.id == after.id and before.group == after.group
    assert spec(after).weights == str(tmp_path / "moved" / "final.pth")
    again = Cell.from_json({**json.loads(json.dumps(after.to_json())), "paths": dict(after.paths)})
    assert spec(again) == spec(after) and arguments(again) == arguments(after) and "weights" not in arguments(after)


def folder(tmp_path: Path) -> Path:
    """A folder with its weights in two parts, as a large model's."""
    from safetensors.torch import load_file, save_file

    path = tmp_path / "up" / "model"
    shutil.copytree(CHECKPOINTS / "pocket-pythia", path)
    tensors = load_file(path / "model.safetensors")
    names = sorted(tensors)
    (path / "model.safetensors").unlink()
    parts = {"a.safetensors": names[:5], "b.safetensors": names[5:]}
    for part, own in parts.items():
        save_file({name: tensors[name] for name in own}, path / part, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: part for part, own in parts.items() for name in own}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    shutil.copy(TOKENIZER_FILE, path.parent)
    return path


CHANGES: dict[str, Callable[[Path], object]] = {
    "a shard": lambda path: (path / "b.safetensors").write_bytes((path / "b.safetensors").read_bytes()[:-1] + b"1"),
    "the index": lambda path: (path / "model.safetensors.index.json").write_text("{}"),
    "config": lambda path: (path / "config.json").write_text((path / "config.json").read_text() + " "),
    "the tokenizer above": lambda path: (path.parent / "tokenizer.json").write_text("{}"),
    "a tokenizer of its own": lambda path: shutil.copy(TOKENIZER_FILE, path),
    "a tokenizer's configuration": lambda path: (path / "tokenizer_config.json").write_text("{}"),
    "an adapter": lambda path: (path / "adapter_config.json").write_text("{}"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_loading_reads_names_the_cell(tmp_path: Path, change: str) -> None:
    path = folder(tmp_path)
    before = one(tmp_path, model="pocket-pythia", weights=str(path))
    (path / "README.md").write_text("read by nobody")
    (path / "optimizer.bin").write_bytes(b"1")
    assert one(tmp_path, model="pocket-pythia", weights=str(path)) == before
    CHANGES[change](path)
    after = one(tmp_path, model="pocket-pythia", weights=str(path))
    assert after.model.weights != before.model.weights and after.id != before.id
    with pytest.raises(BadInput, match=r"weights 'model': changed or gone since it was planned"):
        check_files(before)


@pytest.mark.parametrize("name", ["last.pth", "last.safetensors"])
def test_a_checkpoint_of_the_hubs_cache_is_read_by_its_name(tmp_path: Path, pth: Path, name: str) -> None:
    """There, snapshots/COMMIT holds links to files without an ending in blobs."""
    shutil.copy(CHECKPOINTS / "pocket-rwkv4" / "model.safetensors", pth.with_suffix(".safetensors"))
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate((pth.with_name(name), pth.with_name("tokenizer.json"))):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(Path("../../blobs", str(number)))
    cell = one(tmp_path, weights=str(snapshot / name))
    assert cell == one(tmp_path, weights=str(pth.with_name(name)))
    assert measured(cell).metrics["acc"] == 1.0
    (snapshot / name).unlink()
    (snapshot / name).symlink_to(CHECKPOINTS / "pocket-rwkv4-2048" / "model.safetensors")  # the link leads elsewhere
    with pytest.raises(BadInput, match="changed or gone"):
        check_files(cell)


def test_a_link_without_a_tokenizer_has_that_of_the_file_it_leads_to(tmp_path: Path, pth: Path) -> None:
    link = tmp_path / "links" / "latest.pth"
    link.parent.mkdir()
    link.symlink_to(pth)
    (tmp_path / "tokenizer.json").write_text("above the link, and another's")
    assert one(tmp_path, weights=str(link)) == one(tmp_path, weights=str(pth))
    assert measured(one(tmp_path, weights=str(link))).metrics["acc"] == 1.0
    shutil.copy(TOKENIZER_FILE, link.parent)
    (pth.parent / "tokenizer.json").write_text("{}")
    assert measured(one(tmp_path, weights=str(link))).metrics["acc"] == 1.0


def test_a_model_of_this_package_is_named_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "ROOT", tmp_path)
    place = tmp_path / "evals" / "pocket" / "checkpoints"
    shutil.copytree(CHECKPOINTS / "pocket-rwkv4", place / "pocket-rwkv4")
    shutil.copy(TOKENIZER_FILE, place)
    before = one(tmp_path)
    assert before.model.revision.startswith("content:") and before.model.weights == "pretrained"
    shutil.copy(CHECKPOINTS / "pocket-rwkv4-2048" / "model.safetensors", place / "pocket-rwkv4")
    assert one(tmp_path).id != before.id
    record = measured(before)
    assert (
        record.status == "failed" and "changed or gone since it was planned" in record.error and record.id == before.id
    )


def test_random_and_fresh_weights_are_named_as_they_were(tmp_path: Path) -> None:
    for weights in ("random:0", "fresh:0"):
        cell = one(tmp_path, model="pocket-rwkv4", weights=weights)
        assert cell.model == spec(cell) == models.find("pocket-rwkv4", weights=weights) and "weights" not in cell.paths


def changed(values: dict[str, Any], key: str, value: Any) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda monkeypatch: monkeypatch.setitem(values, key, value)


@pytest.mark.parametrize(
    ("asked", "change"),
    [
        ({"task": "piqa", "docs": 4}, changed(tasks.catalogue()["piqa"], "own_space", True)),
        (
            {"experiment": "prompts", "task": "pocket", "order": "text first", "docs": 4},
            changed(prompts.catalogue()["pocket"].orders, "text first", prompts.Order("{passage} {question}", "ours")),
        ),
    ],
    ids=["zeroshot", "prompts"],
)
def test_a_task_that_is_defined_anew_is_measured_anew(
    asked: dict[str, Any], change: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = one(tmp_path, **asked)

    def selection() -> schedule.Selection:
        return schedule.choose(tmp_path / "schedule.yaml", tmp_path / "store", "")

    schedule.execute(selection())
    assert selection().state(cell) == "ok" and not selection().pending
    with monkeypatch.context() as meanwhile:
        change(meanwhile)
        assert selection().pending == [cell] and selection().state(cell) == "to measure"
    assert not selection().pending


def test_a_branch_that_moved_is_another_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    refs = tmp_path / "models--EleutherAI--pythia-14m" / "refs"
    refs.mkdir(parents=True)
    found = []
    for commit in ("a" * 40, "b" * 40):
        (refs / "main").write_text(commit)
        content.commit.cache_clear()
        moving = ModelSpec("small", "pythia", {}, repo="EleutherAI/pythia-14m")
        assert content.identified(moving)[0].revision == commit
        found.append(one(tmp_path, model="pythia-14m", data="hub"))
    (refs / "main").unlink()
    content.commit.cache_clear()
    assert content.identified(moving)[0].revision == "main"  # neither the hub nor the cache knows
    assert content.commit("a/b", "c" * 40) == "c" * 40
    content.commit.cache_clear()


@pytest.mark.parametrize(
    ("asked", "repository"),
    [
        ({"experiment": "zeroshot", "task": "boolq"}, "aps--super_glue"),
        ({"experiment": "prompts", "task": "rte", "order": "text first"}, "nyu-mll--glue"),
    ],
)
def test_a_data_set_of_the_hub_that_moved_is_another_cell(
    asked: dict[str, str], repository: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(content, "_unreachable", [OSError()])
    refs = tmp_path / f"datasets--{repository}" / "refs"
    refs.mkdir(parents=True)
    found = []
    for commit in ("a" * 40, "b" * 40):
        (refs / "main").write_text(commit)
        content.commit.cache_clear()
        found.append(one(tmp_path, **asked, data="hub"))
        pinned = one(tmp_path, **asked, data=f"hub:{commit}")
        assert found[-1].params["data"] == arguments(found[-1])["data"] == f"hub:{commit}" and pinned == found[-1]
        check_files(found[-1])  # nothing of the hub lies here
    assert found[0].id != found[1].id
    (refs / "main").unlink()
    content.commit.cache_clear()
    assert one(tmp_path, **asked, data="hub").params["data"] == "hub"


def test_the_hub_goes_before_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import RepositoryNotFoundError

    asked: list[str] = []

    class Hub:
        def repo_info(self, repo: str, revision: str, repo_type: str, timeout: float) -> Any:
            asked.append(repo)
            if repo == "a/absent":
                raise RepositoryNotFoundError("not found", response=_Response())  # type: ignore[arg-type]
            if repo == "a/unreachable":
                raise ConnectionError
            return _Info()

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(content, "_unreachable", [])
    names = ["a/there", "a/absent", "a/there2", "a/unreachable", "a/there3"]
    found = [content.commit.__wrapped__(name, "main") for name in names]
    assert found == ["d" * 40, "main", "d" * 40, "main", "main"]
    assert asked == names[:-1]  # not asked again once it could not be reached


class _Info:
    sha = "d" * 40


class _Response:
    headers: dict[str, str] = {}  # noqa: RUF012
    request = None
    status_code = 404
    text = ""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return world.write(tmp_path / "data")


def _text(tmp_path: Path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / f"{name}.txt").write_text("The kettle warms the river near the harbour. " * 200)
    return folder


def planned(tmp_path: Path, what: str) -> tuple[Cell, Path]:
    """A cell that reads one kind of file, and that file."""
    tokenizer = world.tokenizer(tmp_path / "tokenizer.json")
    small = {"model": "pythia-14m", "weights": "random:0", "tokenizer": str(tokenizer)}
    if what == "text":
        text = _text(tmp_path)
        more = {"experiment": "context", "text": str(text), "tokens": 16, "documents": 2, **small}
        (tmp_path / "schedule.yaml").write_text(json.dumps({"runs": [more]}))
        return matrix.read(tmp_path / "schedule.yaml")[0], text / "c.txt"
    data = world.write(tmp_path / "data")
    path = {"data": data / "piqa" / "validation.jsonl", "tokenizer": tokenizer}[what]
    return one(tmp_path, data=str(data), **small), path


@pytest.mark.parametrize("moment", ["before", "while"])
@pytest.mark.parametrize("end", ["changed", "gone"])
@pytest.mark.parametrize("what", ["data", "tokenizer", "text"])
def test_what_changes_after_the_plan_is_not_measured_under_its_old_name(
    tmp_path: Path, what: str, end: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, path = planned(tmp_path, what)
    experiment = EXPERIMENTS[cell.experiment]
    original = experiment.run

    def change() -> None:
        if end == "gone":
            shutil.rmtree(path.parent) if what != "tokenizer" else path.unlink()
        else:
            path.write_text(path.read_text().replace("kettle", "ladder"))

    @functools.wraps(original)  # its signature is the experiment's schema
    def meanwhile(*arguments: Any, **more: Any) -> Any:
        if moment == "while":
            change()
            monkeypatch.setattr(tasks, "overlay", _no_hub)
        return original(*arguments, **more) if end == "changed" else ({}, {})

    monkeypatch.setitem(EXPERIMENTS, cell.experiment, dataclasses.replace(experiment, run=meanwhile))
    if moment == "before":
        change()
    record = measured(cell)
    assert record.status == "failed" and record.id == cell.id and not record.metrics and not record.traceback
    assert record.error.startswith(f"{what} '") and "changed or gone since it was planned" in record.error


def _no_hub(name: str, data: str, *more: Any) -> str:
    assert not data.startswith("hub"), "the hub was asked for data that were local"
    return OVERLAY(name, data, *more)


OVERLAY = tasks.overlay


def test_local_data_that_are_gone_are_never_the_hubs(data: Path, tmp_path: Path) -> None:
    cell = one(tmp_path, model="pythia-14m", weights="random:0", data=str(data), task="sciq")
    assert cell.params["data"].startswith("local:")
    shutil.rmtree(data / "sciq")
    with pytest.raises(BadInput, match="no folder sciq in there"):
        tasks.load("sciq", arguments(cell)["data"], "v0.4")
    lacking = one(tmp_path, model="pythia-14m", weights="random:0", data=str(data), task="sciq")
    assert (lacking.params["data"], arguments(lacking)["data"]) == ("hub", "hub")  # planned as such


def test_a_tasks_questions_name_its_data(tmp_path: Path) -> None:
    from evals.prompts.tasks import catalogue

    entry = catalogue()["pocket"]
    path = tmp_path / entry.file
    path.parent.mkdir(parents=True)
    path.write_text("{}\n")
    before = identify_prompts(str(tmp_path), {"task": "pocket"})
    path.with_name(tasks.QUESTIONS).write_text("[]")
    assert identify_prompts(str(tmp_path), {"task": "pocket"}) != before


def test_lras_files_are_named_by_their_content(tmp_path: Path) -> None:
    assert identify_lra("generated", {"task": "listops"}) == ("generated", "generated")
    path = tmp_path / "listops-1000" / "basic_train.tsv"
    assert identify_lra(str(tmp_path), {"task": "listops"}) == ("generated", "generated")
    path.parent.mkdir()
    path.write_text("one")
    before, where = identify_lra(str(tmp_path), {"task": "listops"})
    assert before.startswith("local:") and where == str(tmp_path)
    path.write_text("two")
    assert identify_lra(str(tmp_path), {"task": "listops"})[0] != before
    assert identify_lra(str(tmp_path), {"task": "retrieval"})[0] == "generated"
    with pytest.raises(BadInput, match="no such folder"):
        identify_lra(str(tmp_path / "absent"), {"task": "listops"})


def test_a_large_file_is_hashed_once_as_long_as_it_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"1" * 100)
    first = files.digest(path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda *_: pytest.fail("read again"))
        assert files.digest(path) == first
    path.write_bytes(b"2" * 100)
    assert files.digest(path) != first


def test_what_nobody_touched_is_what_was_planned() -> None:
    """Whatever stands for a file, a name like pocket too, must be identified again as it was planned."""
    for name in ("pocket", "prompts-pocket", "needles", "pocket-extend", "zeroshot-random"):
        for cell in matrix.read(models.ROOT / "configs" / f"{name}.yaml"):
            check_files(cell)


@pytest.mark.parametrize("key", ["data", "tokenizer", "weights"])
def test_a_name_that_is_no_text_is_refused_when_it_is_planned(tmp_path: Path, pth: Path, key: str) -> None:
    """As all others than ASCII's are where LC_ALL=C."""
    folder = tmp_path / "d\udce9"
    folder.mkdir()
    shutil.copy(TOKENIZER_FILE, folder)
    shutil.copy(pth, folder)
    path = {"data": folder, "tokenizer": folder / TOKENIZER_FILE.name, "weights": folder / pth.name}[key]
    (folder / "piqa").mkdir()
    with pytest.raises(BadInput, match=rf"run 1: {key} '.*d\\\\udce9.*': a name that is not UTF-8; set LC_ALL"):
        one(tmp_path, **{key: str(path)})


def test_a_folders_content_has_a_name_whatever_its_files_are_called(tmp_path: Path) -> None:
    (tmp_path / "caf\udce9.png").write_bytes(b"1")
    before = files.folder(tmp_path)
    (tmp_path / "caf\udce9.png").rename(tmp_path / "caf\udcea.png")
    assert files.folder(tmp_path) != before
