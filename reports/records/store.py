"""Where records lie: one JSON file a cell. That the file is there is what resumes a run.

A file is written under a temporary name, flushed to the disk and moved into place, so that what has
a record's name is whole. What was found for each item of a task, `items` among a record's samples,
lies beside it as compressed JSON lines and is written before it; the record keeps their number and the file's digest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reports.records.record import SCHEMA, Record, SchemaTooNew
from rwkv_core.errors import BadInput
from rwkv_core.files import write_atomically

NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # what file systems without locks answer


def _pack(items: list[dict[str, Any]]) -> bytes:
    lines = "".join(json.dumps(item, separators=(",", ":")) + "\n" for item in items)
    return gzip.compress(lines.encode(), mtime=0)  # the same items, the same file


def _unpack(content: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(content).decode().splitlines()]


def _whole(path: Path) -> Record:
    """The record of a file. Raises ValueError where the file is no record, or another cell's."""
    if not path.is_file():  # a folder, or a pipe, on which reading would wait for ever
        raise ValueError("not a file")
    record = Record.from_json(path.read_text(encoding="utf-8"))
    if record.id != path.stem:
        raise ValueError(f"it is the record of {record.id}")
    return record


def _checked(path: Path, beside: Any) -> bytes:
    """The packed items of a record, which says of them what `write` put there, or in schema 1 their number alone.

    Raises as gzip does, or ValueError, where they are damaged.
    """
    if not path.is_file():
        raise ValueError("the file of its items is missing")
    packed = path.read_bytes()
    if isinstance(beside, int):
        if (count := len(_unpack(packed))) != beside:
            raise ValueError(f"{count} items beside it, not {beside}")
    elif hashlib.sha256(packed).hexdigest() != beside["sha256"]:
        raise ValueError("the digest of its items is another")
    return packed


class Store:
    """A folder of records."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, items: bool = False) -> tuple[dict[str, Record], dict[Path, str]]:
        """Records by cell id, and a warning for each damaged one; `items`: with the items of their samples, which are
        looked through in any case: a record is whole where they are.

        Raises BadInput for a newer schema.
        """
        records, damaged = {}, {}
        for path in sorted(self.folder.glob("*.json")):
            try:
                record = _whole(path)
                if "items" in record.samples:
                    packed = _checked(self._items_path(path.stem), record.samples["items"])
                    if items:
                        record.samples["items"] = _unpack(packed)
            except SchemaTooNew as error:
                raise BadInput(
                    f"{path}: written by a newer rwkv-bench (schema {error}, this one knows {SCHEMA}); "
                    "update it or choose another --store"
                ) from error
            except (ValueError, TypeError, KeyError, EOFError, gzip.BadGzipFile, zlib.error) as error:
                damaged[path] = f"{path}: damaged record ({error}); `rwkv-bench run` measures it again"
                continue
            records[record.id] = record
        return records, damaged

    def write(self, record: Record) -> Path:
        """The record's file, replacing an earlier one of the same cell."""
        path = self.folder / f"{record.id}.json"
        if "items" in record.samples:
            items = record.samples["items"]
            packed = _pack(items)
            write_atomically(self._items_path(record.id), packed)
            beside = {"count": len(items), "sha256": hashlib.sha256(packed).hexdigest()}
            record = dataclasses.replace(record, samples={**record.samples, "items": beside})
        write_atomically(path, record.to_json())
        return path

    def _items_path(self, cell: str) -> Path:
        return self.folder / f"{cell}.items.jsonl.gz"

    @contextlib.contextmanager
    def locked(self) -> Iterator[str]:
        """One run at a time in this folder; the system lets go of the lock when the process ends. Yields what the user
        must know: nothing, or that the file system has no locks.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = (self.folder / ".lock").open("ab")
        except OSError as error:
            raise BadInput(f"{self.folder}: cannot be written ({error.strerror}); choose another --store") from error
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BadInput(
                    f"{self.folder}: another run is measuring into it; wait for it or give --store"
                ) from error
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise BadInput(
                        f"{self.folder}: cannot be locked ({error.strerror}); give another --store"
                    ) from error
                yield (
                    f"{self.folder}: this file system has no locks ({error.strerror}), so the run goes on without one; "
                    "start no second run there, or give a --store on a local disk"
                )
                return
            for leftover in self.folder.glob(".writing-*"):
                leftover.unlink()
            yield ""

    def set_aside(self, path: Path) -> Path:
        """Move a damaged record and its items to damaged/, where nothing reads them and nothing overwrites them."""
        folder = self.folder / "damaged"
        folder.mkdir(exist_ok=True)
        aside = folder / path.name
        number = 1
        while aside.exists():
            number += 1
            aside = folder / f"{path.stem}.{number}.json"
        path.rename(aside)
        with contextlib.suppress(FileNotFoundError):
            self._items_path(path.stem).rename(folder / f"{aside.stem}.items.jsonl.gz")
        return aside
