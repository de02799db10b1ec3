"""Records on disk: whole or not at all; damaged ones aside; newer schemas refused."""

import errno
import fcntl
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from reports.records.record import SCHEMA, Record
from reports.records.store import Store
from rwkv_core.errors import BadInput

RECORD = Record({"id": "one", "params": {}}, "ok", {"a": 1}, {"s": [0.1, 0.2]}, provenance={"machine": "m"})


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    store = Store(tmp_path / "deep" / "store")
    store.write(RECORD)
    assert store.read() == ({"one": RECORD}, {})


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "{}", '{"schema": 1}', RECORD.to_json()[:-9], "[" * 100_000),
        *(
            RECORD.to_json().replace(*change)
            for change in (('"ok"', '"fine"'), ("0.2", "0.3"), ('"schema": 2', '"schema": 1'))
        ),
        Record({"id": "of another cell"}, "oom").to_json(),
    ],
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


def test_a_disturbed_record_has_numbers_and_is_not_final(tmp_path: Path) -> None:
    for status, measured, final in (("ok", True, True), ("disturbed", True, False), ("oom", False, True)):
        Store(tmp_path).write(Record({"id": "one"}, status))  # type: ignore[arg-type]
        record = Store(tmp_path).read()[0]["one"]
        assert (record.status, record.measured, record.final) == (status, measured, final)


def test_any_changed_byte_of_a_record_or_of_its_items_is_seen(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(Record({"id": "one"}, "ok", samples={"items": [{"doc": i, "acc": 1.0} for i in range(9)]}))
    assert store.read()[1] == {}
    for path in (tmp_path / "one.json", tmp_path / "one.items.jsonl.gz"):
        content = path.read_bytes()
        for place in range(len(content)):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            records, damaged = store.read()
            assert not records and list(damaged) == [tmp_path / "one.json"], place
        path.write_bytes(content)
    aside = store.set_aside(tmp_path / "one.json")
    assert sorted(path.name for path in aside.parent.iterdir()) == ["one.items.jsonl.gz", "one.json"]


def test_records_of_the_first_schema_are_read(tmp_path: Path) -> None:
    text = Record({"id": "one"}, "ok", samples={"items": 1}).to_json()
    without_digest = text.rpartition(',\n"sha256"')[0].replace('"schema": 2', '"schema": 1') + "\n}\n"
    (tmp_path / "one.json").write_text(without_digest)
    (tmp_path / "one.items.jsonl.gz").write_bytes(gzip.compress(b'{"doc": 0}\n'))
    assert Store(tmp_path).read(items=True)[0]["one"].samples == {"items": [{"doc": 0}]}
    packed = gzip.compress(b'{"doc": 0}\n')
    for other in (packed[:-3], b"", gzip.compress(b""), packed * 2, gzip.compress(b"no JSON\n")):
        (tmp_path / "one.items.jsonl.gz").write_bytes(other)
        assert not Store(tmp_path).read()[0] and len(Store(tmp_path).read()[1]) == 1


def test_what_is_no_file_does_not_stop_the_others(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(RECORD)
    (tmp_path / "folder.json").mkdir()
    os.mkfifo(tmp_path / "pipe.json")
    for name in ("two", "three"):
        store.write(Record({"id": name}, "ok", samples={"items": [{"doc": 0}]}))
        (tmp_path / f"{name}.items.jsonl.gz").unlink()
    (tmp_path / "two.items.jsonl.gz").mkdir()
    (tmp_path / "three.items.jsonl.gz").symlink_to("three.items.jsonl.gz")
    records, damaged = store.read()
    assert list(records) == ["one"]
    assert {path.name for path in damaged} == {"folder.json", "pipe.json", "two.json", "three.json"}
    for path in damaged:
        store.set_aside(path)
    assert store.read() == (records, {})


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    newer = {"schema": SCHEMA + 1, "cell": {"id": "one"}}
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
    assert Store(tmp_path).read()[0] == {"one": RECORD}


def test_not_a_number_is_not_stored(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        Store(tmp_path).write(Record({"id": "one"}, "ok", {"x": float("nan")}))


def test_items_lie_beside_the_record_and_come_back_when_asked_for(tmp_path: Path) -> None:
    items = [{"doc": i, "acc": 1.0} for i in range(50)]
    record = Record({"id": "one"}, "ok", samples={"items": items}, provenance={"machine": "m"})
    store = Store(tmp_path)
    store.write(record)
    assert record.samples["items"] is items  # the caller's own is left alone
    assert store.read()[0]["one"].samples["items"]["count"] == 50
    assert store.read(items=True)[0]["one"].samples == {"items": items}
    (packed,) = tmp_path.glob("*.items.jsonl.gz")
    first = packed.read_bytes()
    store.write(record)
    assert packed.read_bytes() == first
    packed.unlink()
    for items_too in (True, False):
        assert "damaged record" in store.read(items=items_too)[1][tmp_path / "one.json"]
