"""Records on disk: whole or not at all; damaged ones aside; newer schemas refused."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from reports.record import SCHEMA, Record
from reports.store import Store
from rwkv_core.spec import BadInput

RECORD = Record({"id": "one", "params": {}}, "ok", {"a": 1}, {"s": [0.1, 0.2]}, provenance={"machine": "m"})


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    store = Store(tmp_path / "deep" / "store")
    store.write(RECORD)
    assert store.read() == ({"one": RECORD}, {})


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"schema": 1}', RECORD.to_json()[:-9], RECORD.to_json().replace('"ok"', '"fine"')]
)
def test_a_damaged_record_is_named_and_kept_aside(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path)
    other = Record({"id": "two"}, "oom", error="full")
    store.write(other)
    for _ in range(2):
        (tmp_path / "one.json").write_text(text)
        records, damaged = store.read()
        assert records == {"two": other} and "one.json: damaged record" in damaged[tmp_path / "one.json"]
        assert (tmp_path / "one.json").read_text() == text  # reading moves nothing
        store.set_aside(tmp_path / "one.json")
    assert sorted(p.name for p in (tmp_path / "damaged").iterdir()) == ["one.2.json", "one.json"]
    assert (tmp_path / "damaged" / "one.json").read_text() == text


def test_a_record_of_the_first_schema_is_read(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(RECORD.to_json().replace(f'"schema": {SCHEMA}', '"schema": 1'))
    assert SCHEMA == 2 and Store(tmp_path).read()[0]["one"].samples == RECORD.samples


def test_a_disturbed_record_has_numbers_and_is_not_final(tmp_path: Path) -> None:
    for status, measured, final in (("ok", True, True), ("disturbed", True, False), ("oom", False, True)):
        Store(tmp_path).write(Record({"id": "one"}, status))  # type: ignore[arg-type]
        record = Store(tmp_path).read()[0]["one"]
        assert (record.status, record.measured, record.final) == (status, measured, final)


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    newer = {**json.loads(RECORD.to_json()), "schema": SCHEMA + 1}
    (tmp_path / "one.json").write_text(json.dumps(newer))
    with pytest.raises(BadInput, match="newer rwkv-bench"):
        Store(tmp_path).read()
    assert json.loads((tmp_path / "one.json").read_text()) == newer


def test_no_space_left_is_one_line_and_leaves_earlier_records_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    store.write(RECORD)

    def full(descriptor: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BadInput, match="No space left"):
        store.write(Record({"id": "one"}, "failed", error="later"))
    assert store.read() == ({"one": RECORD}, {}) and [p.name for p in tmp_path.iterdir()] == ["one.json"]


def test_leftovers_of_a_killed_run_are_cleared(tmp_path: Path) -> None:
    (tmp_path / ".writing-abc").write_text("{")
    with Store(tmp_path).locked(), pytest.raises(BadInput, match="another run"), Store(tmp_path).locked():
        pass
    assert not (tmp_path / ".writing-abc").exists()


def test_not_a_number_is_not_stored(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        Store(tmp_path).write(Record({"id": "one"}, "ok", {"x": float("nan")}))


def test_items_lie_beside_the_record_and_come_back_when_asked_for(tmp_path: Path) -> None:
    items = [{"doc": i, "acc": 1.0} for i in range(50)]
    record = Record({"id": "one"}, "ok", samples={"items": items}, provenance={"machine": "m"})
    store = Store(tmp_path)
    store.write(record)
    assert record.samples["items"] is items  # the caller's own is left alone
    assert store.read()[0]["one"].samples == {"items": 50}
    assert store.read(items=True)[0]["one"].samples == {"items": items}
    (packed,) = tmp_path.glob("*.items.jsonl.gz")
    first = packed.read_bytes()
    store.write(record)
    assert packed.read_bytes() == first
    for damage in (first[:-9], b"no gzip", first[:12] + bytes(10) + first[22:]):
        packed.write_bytes(damage)
        assert "damaged record" in store.read(items=True)[1][tmp_path / "one.json"]
    packed.unlink()
    assert "damaged record" in store.read(items=True)[1][tmp_path / "one.json"]
    assert store.read()[0]["one"].final
