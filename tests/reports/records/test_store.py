"""Records on disk: whole or not at all, a folder a machine; damaged ones aside; earlier schemas read and renewed, newer
ones refused.
"""

import errno
import fcntl
import gzip
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reports.records.cell import Cell
from reports.records.record import DIGEST, SCHEMA, Record, Status
from reports.records.store import Store
from rwkv_core.errors import BadInput
from rwkv_core.spec import ModelSpec
from tests import make
from tests.make import altered, measured_elsewhere

CELL = make.cell("lra", None, {"task": "image", "seed": 0}, version=2)
RECORD = make.record(CELL, {"a": 1}, {"s": [0.1, 0.2]})
ITEMS = [{"doc": i, "acc": 1.0} for i in range(9)]
WITH_ITEMS = make.record(CELL, samples={"items": ITEMS})
FOLDER = "test-cpu-2-cores"  # of tests.make's machine


def items_beside(path: Path) -> Path:
    return path.with_name(f"{path.stem}.items.jsonl.gz")


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its name in there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def signed(text: str) -> str:
    """A record's text whose last line is the digest of what now stands before it."""
    content = text.rpartition(DIGEST)[0]
    return f'{content}{DIGEST}"{hashlib.sha256(content.encode()).hexdigest()}"\n}}\n'


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    store = Store(tmp_path / "deep" / "store")
    path = store.write(RECORD)
    assert store.read() == ([RECORD], {})
    assert path == tmp_path / "deep" / "store" / FOLDER / f"{CELL.id}.json"


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "{}", '{"schema": 1}', RECORD.to_json()[:-9], "[" * 100_000),
        *(
            RECORD.to_json().replace(*change)
            for change in (
                ('"ok"', '"fine"'),
                ("0.2", "0.3"),
                ('"schema": 3', '"schema": 2'),
                ('"schema": 3', '"schema": 1'),
            )
        ),
        RECORD.to_json().rpartition(DIGEST)[0] + "\n}\n",
        signed(RECORD.to_json().replace('"task": "image"', '"task": "text"')),
        altered(RECORD, seed=1).to_json(),
    ],
)
def test_a_damaged_record_is_named_and_kept_aside(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path)
    beside = make.record(make.cell("lra", None, {"task": "text"}), status="oom", error="full")
    path = store.write(RECORD)
    store.write(beside)
    for _ in range(2):
        path.write_text(text)
        records, damaged = store.read()
        assert records == [beside] and f"{path}: damaged record" in damaged[path]
        assert path.read_text() == text  # reading moves nothing
        store.set_aside(path)
    aside = path.parent / "damaged"
    assert sorted(p.name for p in aside.iterdir()) == [f"{path.stem}.2.json", path.name]
    assert (aside / path.name).read_text() == text


def test_a_disturbed_record_has_numbers_and_is_not_final(tmp_path: Path) -> None:
    kinds: list[tuple[Status, bool, bool]] = [("ok", True, True), ("disturbed", True, False), ("oom", False, True)]
    for status, measured, final in kinds:
        Store(tmp_path).write(make.record(CELL, status=status))
        (record,) = Store(tmp_path).read()[0]
        assert (record.status, record.measured, record.final) == (status, measured, final)


def test_any_changed_byte_of_a_record_or_of_its_items_is_seen(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.write(WITH_ITEMS)
    assert store.read()[1] == {}
    for changed in (path, items_beside(path)):
        content = changed.read_bytes()
        for place in range(len(content)):
            changed.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            records, damaged = store.read()
            assert not records and list(damaged) == [path], place
        changed.write_bytes(content)
    aside = store.set_aside(path)
    assert sorted(p.name for p in aside.parent.iterdir()) == [items_beside(path).name, path.name]


def test_what_is_no_file_does_not_stop_the_others(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = store.write(RECORD).parent / "folder.json"
    folder.mkdir()
    pipe = folder.with_name("pipe.json")
    os.mkfifo(pipe)
    second, third = (store.write(altered(WITH_ITEMS, seed=seed)) for seed in (1, 2))
    for path in (second, third):
        items_beside(path).unlink()
    items_beside(second).mkdir()
    items_beside(third).symlink_to(items_beside(third).name)
    records, damaged = store.read()
    assert records == [RECORD]
    assert set(damaged) == {folder, pipe, second, third}
    for path in damaged:
        store.set_aside(path)
    assert store.read() == (records, {})


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    text = signed(RECORD.to_json().replace(f'"schema": {SCHEMA}', f'"schema": {SCHEMA + 1}'))
    path = Store(tmp_path).write(RECORD)
    path.write_text(text)
    with pytest.raises(BadInput, match="newer rwkv-bench"):
        Store(tmp_path).read()
    assert path.read_text() == text


def test_no_space_left_is_one_line_and_leaves_earlier_records_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    store.write(RECORD)

    def full(descriptor: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BadInput, match="No space left"):
        store.write(make.record(CELL, status="failed", error="later"))
    assert store.read() == ([RECORD], {}) and list(files(tmp_path)) == [f"{FOLDER}/{CELL.id}.json"]


def test_leftovers_of_a_killed_run_are_cleared(tmp_path: Path) -> None:
    leftovers = [tmp_path / ".writing-abc", tmp_path / FOLDER / ".writing-def"]
    for leftover in leftovers:
        leftover.parent.mkdir(exist_ok=True)
        leftover.write_text("{")
    with Store(tmp_path).locked(), pytest.raises(BadInput, match="another run"), Store(tmp_path).locked():
        pass
    assert not any(leftover.exists() for leftover in leftovers)


def test_a_file_system_without_locks_is_named_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int) -> None:
        def flock(handle: Any, operation: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", flock)

    (tmp_path / ".writing-of-another-run").write_text("{")
    for number in (errno.ENOLCK, errno.EOPNOTSUPP):
        refuse(number)
        with Store(tmp_path).locked() as warning:
            assert str(tmp_path) in warning and "--store" in warning and "\n" not in warning
    assert (tmp_path / ".writing-of-another-run").exists()
    refuse(errno.EIO)
    with pytest.raises(BadInput, match=r"cannot be locked .*--store"), Store(tmp_path).locked():
        pass


def test_a_file_system_without_modes_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chmod(path: Path, mode: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "chmod", chmod)
    Store(tmp_path).write(RECORD)
    assert Store(tmp_path).read()[0] == [RECORD]


def test_not_a_number_is_not_stored(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        Store(tmp_path).write(make.record(CELL, {"x": float("nan")}))


def test_items_lie_beside_the_record_and_come_back_when_asked_for(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.write(WITH_ITEMS)
    assert WITH_ITEMS.samples["items"] is ITEMS  # the caller's are left alone
    assert store.read()[0][0].samples["items"]["count"] == len(ITEMS)
    assert store.read(items=True) == ([WITH_ITEMS], {})
    packed = items_beside(path)
    first = packed.read_bytes()
    store.write(WITH_ITEMS)
    assert packed.read_bytes() == first
    packed.unlink()
    for items_too in (True, False):
        assert "damaged record" in store.read(items=items_too)[1][path]


def test_two_machines_records_of_one_cell_lie_in_two_folders_and_are_both_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    here, there = WITH_ITEMS, measured_elsewhere(make.record(CELL, samples={"items": ITEMS[:1]}), machine="GPU H-200")
    first = store.write(here)
    before = files(tmp_path)
    second = store.write(there)
    assert (first.parent.name, second.parent.name) == (FOLDER, "gpu-h-200") and first.name == second.name
    assert before.items() <= files(tmp_path).items()
    records, damaged = store.read(items=True)
    assert sorted(records, key=lambda record: record.machine) == [there, here] and not damaged
    second.write_text("{")
    records, damaged = store.read(items=True)
    assert records == [here] and list(damaged) == [second]
    store.set_aside(second)
    assert store.read(items=True) == ([here], {}) and before.items() <= files(tmp_path).items()


def test_other_stores_and_models_below_a_store_are_left_alone(tmp_path: Path) -> None:
    below = Store(tmp_path / "below")
    with below.locked():
        below.write(RECORD)
        (tmp_path / "below" / ".writing-now").touch()
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    store = Store(tmp_path)
    store.write(RECORD)
    with store.locked():
        assert store.read() == ([RECORD], {}) and store.migrate() is None
    assert (tmp_path / "below" / ".writing-now").exists()


def test_a_cell_with_another_id_than_its_contents_is_refused() -> None:
    saved = CELL.to_json()
    assert Cell.from_json(json.loads(json.dumps(saved))) == CELL
    for change in (
        {"id": "another"},
        {"version": 3},
        {"threads": 1},
        {"params": {"task": "text", "seed": 0}},
        {"differing": ["seed"]},
        {"device": "cuda"},
    ):
        with pytest.raises(ValueError, match=r"its id is .*, and its content's lra_"):
            Cell.from_json({**saved, **change})


def test_what_is_no_cell_is_refused() -> None:
    saved = CELL.to_json()
    for wrong in (
        {key: value for key, value in saved.items() if key != "differing"},
        {**saved, "colour": "red"},
        {**saved, "model": {"colour": "red"}},
        {**saved, "model": "rwkv4"},
        {**saved, "differing": None},
        {**saved, "differing": ["no parameter"]},
        {**saved, "params": None},
        {key: value for key, value in saved.items() if key != "id"},
    ):
        with pytest.raises(ValueError, match="no cell"):
            Cell.from_json(wrong)


# What schemas 1 and 2 said of a cell: its parameters in their order, `threads` among them, and always a model; its
# cache and its runtime only where they were not the usual ones.
RWKV = {
    "name": "tiny",
    "family": "rwkv4",
    "architecture": {"model_type": "rwkv", "vocab_size": 96, "hidden_size": 40, "num_hidden_layers": 2},
    "repo": "RWKV/tiny",
    "revision": "main",
    "context_length": 1024,
    "parameters": 12345,
    "label": "Tiny",
    "weights": "random:0",
    "attention": "default",
}
PYTHIA = {
    **RWKV,
    "name": "little",
    "family": "pythia",
    "architecture": {"model_type": "gpt_neox", "vocab_size": 96, "hidden_size": 40, "num_hidden_layers": 2},
    "repo": "EleutherAI/little",
    "revision": "f" * 40,
    "weights": "pretrained",
    "attention": "eager",
}
ENCODER = {
    "name": "lra-encoder",
    "family": "encoder",
    "architecture": {"model_type": "encoder", "vocab_size": 257, "hidden_size": 256, "num_hidden_layers": 4},
    "repo": "package:evals/lra",
    "revision": "main",
    "context_length": 16384,
    "parameters": 0,
    "label": "LRA encoder",
    "weights": "fresh:3",
    "attention": "default",
}
LRA = {"task": "image", "mixer": "aft", "protocol": "pocket", "data": "local:lra", "direction": "both", "length": 256}
LRA |= {"pixels": False, "layers": 2, "width": 48, "heads": 4, "inner": 192, "dropout": 0.0, "steps": 1500, "batch": 32}
LRA |= {"learning_rate": 0.003, "weight_decay": 0.05, "train_count": 0, "validation_count": 1000, "test_count": 2000}
OF_LRA = ("data", "eval_every", "inner", "layers", "learning_rate", "length", "mixer", "protocol", "seed", "steps")
OF_LRA = (*OF_LRA, "task", "test_count", "validation_count", "width")


def earlier(
    experiment: str, version: int, model: dict[str, Any], params: dict[str, Any], digest: str = "0123456789"
) -> dict[str, Any]:
    """A cell as schemas 1 and 2 have it."""
    name = f"{experiment}_{model['name']}_cpu_float32_{digest}"
    content = {"experiment": experiment, "version": version, "model": model, "device": "cpu", "dtype": "float32"}
    return {"id": name, **content, "params": params}


def earlier_lra(digest: str = "a683e17d86", **model: Any) -> dict[str, Any]:
    return earlier("lra", 2, {**ENCODER, **model}, {**LRA, "rise": 0.1, "every": 150, "work": ""}, digest)


def now(experiment: str, version: int, model: ModelSpec | None, params: dict[str, Any], *differing: str) -> Cell:
    """A cell as schema 3 has it, with the threads that stand among `params`."""
    params = dict(params)
    threads = params.pop("threads", 0)
    return Cell(experiment, version, model, "cpu", "float32", params, differing, threads)


def now_lra(seed: int) -> Cell:
    differing = [key for key in OF_LRA if key != "seed" or seed]
    return now("lra", 2, None, {**LRA, "warmup": 0.1, "eval_every": 150, "work": "", "seed": seed}, *differing)


def spec(model: dict[str, Any], **facts: str) -> ModelSpec:
    """A model as schema 3 has it: with the usual cache, in this architecture's usual runtime, trained on no pocket."""
    runtime = {"rwkv": "native", "gpt_neox": "transformers"}[model["architecture"]["model_type"]]
    return ModelSpec(**{"cache": "preallocated", "runtime": runtime, "trained_on": "", **model, **facts})


LRA_NOW = now_lra(3)
RACE = {"direction": "forward", "batch": 1, "tokens": 1024, "rounds": 9, "threads": 1, "seed": 0}
GENERATION = {"protocol": "paper", "prompt_tokens": 16, "new_tokens": 256, "batch": 1, "threads": 0, "seed": 0}
ENCODERS = {"mixer": "s4", "direction": "causal", "tokens": 1024, "layers": 1, "threads": 1, "seed": 5}
TRAINING = {"text": "pocket", "window": 64, "batch": 16}
SCORING = {"task": "piqa", "protocol": "v0.3", "data": "hub", "tokenizer": "own", "docs": 20, "share": True}
FRESH, COPIES, PIP = {**RWKV, "weights": "fresh:1"}, {**PYTHIA, "cache": "dynamic"}, {**RWKV, "runtime": "pip_rwkv"}
POCKET = {**RWKV, "repo": "package:evals/pocket/checkpoints/tiny", "weights": "pretrained"}
FOLDERS = {**RWKV, "weights": "results/novels/tiny"}  # which stood there before weights were named by their content
RENEWED = {  # what: before, and now
    "one thread": (earlier("kernels", 1, RWKV, RACE), now("kernels", 1, spec(RWKV), RACE, "rounds")),
    "a thread a core": (
        earlier("inference", 2, PYTHIA, GENERATION),
        now("inference", 2, spec(PYTHIA), GENERATION, "protocol"),
    ),
    "four threads": (
        earlier("inference", 2, RWKV, {**GENERATION, "threads": 4}),
        now("inference", 2, spec(RWKV), {**GENERATION, "threads": 4}, "protocol"),
    ),
    "a cache that was chosen": (
        earlier("inference", 2, COPIES, GENERATION),
        now("inference", 2, spec(PYTHIA, cache="dynamic"), GENERATION, "protocol"),
    ),
    "a runtime that was chosen": (
        earlier("inference", 2, PIP, GENERATION),
        now("inference", 2, spec(RWKV, runtime="pip_rwkv"), GENERATION, "protocol"),
    ),
    "a training without a model": (earlier_lra(), LRA_NOW),
    "its first seed": (earlier_lra(weights="fresh:0"), now_lra(0)),
    "encoders, which had a seed": (
        earlier("encoders", 2, {**ENCODER, "weights": "fresh:0"}, ENCODERS),
        now("encoders", 2, None, ENCODERS, "direction", "layers", "mixer", "seed"),
    ),
    "a pocket model": (
        earlier("zeroshot", 1, POCKET, SCORING),
        now("zeroshot", 1, spec(POCKET, trained_on="pocket"), SCORING, "docs", "protocol", "task"),
    ),
    "a rate with another name": (
        earlier("pretrain", 2, FRESH, {**TRAINING, "end_rate": 0.1}),
        now(
            "pretrain",
            2,
            spec(FRESH),
            {**TRAINING, "final_learning_rate": 0.1},
            *("final_learning_rate", "text", "window"),
        ),
    ),
    "weights of a folder": (earlier("kernels", 1, FOLDERS, RACE), now("kernels", 1, spec(FOLDERS), RACE, "rounds")),
    "an experiment that is no more": (
        earlier("gone", 1, RWKV, {"every": 1, "rise": 2}),
        now("gone", 1, spec(RWKV), {"every": 1, "rise": 2}, "every", "rise"),
    ),
}


def write_earlier(
    folder: Path,
    schema: int,
    cell: dict[str, Any],
    items: list[dict[str, Any]] | None = None,
    status: str = "ok",
    **provenance: Any,
) -> Path:
    """A record as schema 1 or 2 wrote it: a line a field, in 2 the digest of all before it, in 1 the items' number."""
    path = folder / f"{cell['id']}.json"
    folder.mkdir(parents=True, exist_ok=True)
    samples: dict[str, Any] = {"seconds": [0.5, 0.25]}
    if items is not None:
        packed = gzip.compress("".join(json.dumps(item) + "\n" for item in items).encode())
        items_beside(path).write_bytes(packed)
        digest = {"count": len(items), "sha256": hashlib.sha256(packed).hexdigest()}
        samples["items"] = len(items) if schema == 1 else digest
    fields = {
        "cell": cell,
        "status": status,
        "metrics": {"accuracy": 0.5},
        "samples": samples,
        "error": "" if status == "ok" else "why",
        "traceback": "",
        "provenance": {**make.PROVENANCE, **provenance},
        "schema": schema,
    }
    text = "{\n" + ",\n".join(f'"{key}": {json.dumps(value)}' for key, value in fields.items())
    if schema == 2:
        text += f',\n"sha256": "{hashlib.sha256(text.encode()).hexdigest()}"'
    path.write_text(text + "\n}\n")
    return path


def renewed(cell: Cell, items: list[dict[str, Any]] | None = None, **provenance: Any) -> Record:
    """What `write_earlier` wrote, as this schema has it."""
    samples = {"seconds": [0.5, 0.25], **({} if items is None else {"items": items})}
    return make.record(cell, {"accuracy": 0.5}, samples, **provenance)


@pytest.mark.parametrize("schema", [1, 2])
@pytest.mark.parametrize("kind", RENEWED)
def test_records_of_earlier_schemas_are_read_as_this_one_has_them(tmp_path: Path, schema: int, kind: str) -> None:
    before, expected = RENEWED[kind]
    path = write_earlier(tmp_path, schema, before, ITEMS)
    content = files(tmp_path)
    records, damaged = Store(tmp_path).read(items=True)
    assert records == [replace(renewed(expected, ITEMS), schema=schema)] and not damaged
    assert files(tmp_path) == content and not list(tmp_path.glob("*/"))  # reading writes nothing
    (record,) = records
    assert record.id == expected.id != path.stem and "/" not in record.id
    assert Cell.from_json(json.loads(json.dumps(record.cell.to_json()))) == expected


@pytest.mark.parametrize("schema", [1, 2])
def test_damaged_records_of_earlier_schemas_are_named(tmp_path: Path, schema: int) -> None:
    cell = earlier_lra()
    path = write_earlier(tmp_path, schema, cell, ITEMS)
    whole, packed = path.read_text(), items_beside(path).read_bytes()
    for wrong in (packed[:-3], b"", gzip.compress(b""), packed * 2, gzip.compress(b"no JSON\n")):
        items_beside(path).write_bytes(wrong)
        records, damaged = Store(tmp_path).read()
        assert not records and list(damaged) == [path]
    items_beside(path).write_bytes(packed)
    texts = [whole.replace('"fresh:3"', '"pretrained"'), whole.replace('"params"', '"parameters"')]
    texts += [whole.replace(cell["id"], "another"), whole.replace('"model": {', '"model": "lra", "was": {')]
    texts += [whole.replace('"machine"', '"engine"'), whole.replace('"measured_at"', '"at"')]
    texts.append(whole.replace('"provenance": {', '"provenance": 1, "was": {'))
    if schema == 2:
        texts = [*map(signed, texts), whole.rpartition(DIGEST)[0] + "\n}\n"]
    for text in [*texts, whole[:-9]]:
        path.write_text(text)
        records, damaged = Store(tmp_path).read()
        assert not records and list(damaged) == [path], text[:300]
    path.write_text(whole.replace("0.25", "0.75"))  # of which schema 1 cannot know
    assert len(Store(tmp_path).read()[1]) == schema - 1
    path.write_text(whole)
    assert len(Store(tmp_path).read()[0]) == 1


def test_migration_moves_records_into_machines_folders_and_keeps_a_copy(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    first = write_earlier(store.folder, 1, earlier_lra(), ITEMS)
    second = write_earlier(store.folder, 2, RENEWED["a pocket model"][0], ITEMS[:2], machine="Other")
    third = write_earlier(store.folder, 2, RENEWED["weights of a folder"][0])
    damaged = write_earlier(store.folder, 2, earlier_lra("of a damaged one"), ITEMS)
    damaged.write_text(damaged.read_text().replace("0.25", "0.75"))
    current = store.write(WITH_ITEMS)
    aside = store.folder / "damaged" / "one.json"
    aside.parent.mkdir()
    aside.write_text("{")
    before, (read_before, warnings) = files(store.folder), store.read(items=True)
    assert len(read_before) == 4 and list(warnings) == [damaged]

    with store.locked():
        copy = store.migrate()
    assert copy == tmp_path / "store.before-schema-3" and files(copy) == before
    read_after, warnings = store.read(items=True)
    by_id = {record.id: record for record in read_after}
    assert by_id == {record.id: replace(record, schema=SCHEMA) for record in read_before} and len(read_after) == 4
    assert list(warnings) == [damaged]
    renewed_paths = [
        store.folder / FOLDER / f"{LRA_NOW.id}.json",
        store.folder / "other" / f"{RENEWED['a pocket model'][1].id}.json",
        store.folder / FOLDER / f"{RENEWED['weights of a folder'][1].id}.json",
    ]
    unchanged = [damaged, items_beside(damaged), current, items_beside(current), aside]
    expected = {*renewed_paths, *map(items_beside, renewed_paths[:2]), *unchanged, store.folder / ".lock"}
    after = files(store.folder)
    assert set(after) == {str(path.relative_to(store.folder)) for path in expected}
    assert not any(path.exists() for path in (first, second, third))
    assert all(after[name] == before[name] for name in (str(path.relative_to(store.folder)) for path in unchanged))
    assert all(json.loads(path.read_text())["schema"] == SCHEMA for path in renewed_paths)

    assert store.migrate() is None
    assert files(store.folder) == after and sorted(path.name for path in tmp_path.iterdir()) == [
        "store",
        "store.before-schema-3",
    ]


def test_a_store_with_nothing_of_earlier_schemas_is_left_alone(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert store.migrate() is None and not list(tmp_path.iterdir())
    store.write(WITH_ITEMS)
    (store.folder / "one.json").write_text("{")
    before = files(tmp_path)
    assert store.migrate() is None and files(tmp_path) == before


def test_a_second_copy_of_a_store_has_a_number(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    copies = []
    for seed in range(3):
        write_earlier(store.folder, 2, earlier_lra(weights=f"fresh:{seed}"))
        copies.append(store.migrate())
    assert [copy and copy.name for copy in copies] == [
        "store.before-schema-3",
        "store.2.before-schema-3",
        "store.3.before-schema-3",
    ]
    assert [len(files(copy)) for copy in copies if copy] == [1, 2, 3] and len(store.read()[0]) == 3


@pytest.mark.parametrize("digests", [("a", "b"), ("b", "a")])
@pytest.mark.parametrize(
    ("worse", "better"),
    [
        (("ok", "2026-01-01"), ("ok", "2026-01-02")),
        (("disturbed", "2026-01-02"), ("ok", "2026-01-01")),
        (("failed", "2026-01-02"), ("disturbed", "2026-01-01")),
    ],
)
def test_of_two_earlier_records_that_become_one_the_one_that_is_worth_more_stays(
    tmp_path: Path, digests: tuple[str, str], worse: tuple[str, str], better: tuple[str, str]
) -> None:
    store = Store(tmp_path / "store")
    labels = ("LRA encoder", "another label")
    for digest, label, (status, at), items in zip(digests, labels, (worse, better), (None, ITEMS), strict=True):
        write_earlier(store.folder, 2, earlier_lra(digest, label=label), items, status, measured_at=at)
    write_earlier(store.folder, 2, earlier_lra("c"), ITEMS[:1], machine="Other", measured_at="2025-01-01")
    copy = store.migrate()
    assert copy and len(files(copy)) == 5
    here, there = sorted(store.read(items=True)[0], key=lambda record: record.machine, reverse=True)
    assert (here.status, here.provenance["measured_at"], here.samples["items"]) == (*better, ITEMS)
    assert there == renewed(LRA_NOW, ITEMS[:1], machine="Other", measured_at="2025-01-01")
    assert len(files(store.folder)) == 4


@pytest.mark.parametrize(
    ("status", "at"), [("ok", "2025-12-31"), ("disturbed", "2027-01-01"), ("failed", "2027-01-01")]
)
def test_a_record_of_this_schema_that_is_worth_more_is_not_replaced(tmp_path: Path, status: str, at: str) -> None:
    store = Store(tmp_path / "store")
    path = store.write(make.record(LRA_NOW, samples={"items": ITEMS}))
    before = files(store.folder)
    write_earlier(store.folder, 2, earlier_lra(), ITEMS[:1], status, measured_at=at)
    assert store.migrate() and files(store.folder) == before
    store.write(replace(make.record(LRA_NOW, samples={"items": ITEMS}), status="disturbed", error="noise"))
    write_earlier(store.folder, 2, earlier_lra(), ITEMS[:1], measured_at=at)
    assert store.migrate() and store.read(items=True) == ([renewed(LRA_NOW, ITEMS[:1], measured_at=at)], {})
    assert set(files(store.folder)) == set(before) and path.is_file()


def test_the_folder_one_stands_in_is_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_earlier(tmp_path / "store", 2, earlier_lra())
    monkeypatch.chdir(tmp_path / "store")
    store = Store(Path())
    assert store.migrate() == tmp_path / "store.before-schema-3"
    assert store.read() == ([renewed(LRA_NOW)], {}) and store.migrate() is None
