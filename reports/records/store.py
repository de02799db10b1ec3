"""Where records lie: one JSON file a cell and machine. That the file is there is what resumes a run.

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
import re
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reports.records.provenance import check_repeatable, in_gallery
from reports.records.record import SCHEMA, Record, SchemaTooNew
from rwkv_core.errors import BadInput
from rwkv_core.files import replaced, write_atomically

LOCK = ".lock"
FOREIGN = (LOCK, "config.json")  # a folder with one of these is no machine's
DAMAGED = "damaged"
ITEMS = ".items.jsonl.gz"
DAMAGES = (ValueError, TypeError, KeyError, EOFError, gzip.BadGzipFile, zlib.error)  # what reading one raises
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
    return Record.from_json(path.read_text(encoding="utf-8"), path.stem)


def _items_path(path: Path) -> Path:
    """Where the items of the record in that file lie."""
    return path.with_name(f"{path.stem}{ITEMS}")


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
    """A folder of records, in it a folder a machine, so that two machines never overwrite each other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, items: bool = False) -> tuple[list[Record], dict[Path, str]]:
        """The records, and a warning for each damaged one; `items`: with the items of their samples, which are
        looked through in any case: a record is whole where they are. Those of earlier schemas are read as this one has
        them, also where they lie beside the machines' folders. Raises BadInput for a newer schema.
        """
        records, damaged = [], {}
        for path in self._files():
            try:
                records.append(_read(path, items))
            except SchemaTooNew as error:
                raise BadInput(
                    f"{path}: written by a newer rwkv-bench (schema {error}, this one knows {SCHEMA}); "
                    "update it or choose another --store"
                ) from error
            except DAMAGES as error:
                damaged[path] = f"{path}: damaged record ({error}); `rwkv-bench run` measures it again"
        return records, damaged

    def write(self, record: Record) -> Path:
        """The record's file, replacing an earlier one of the same cell on the same machine. Raises BadInput where it
        would be one in the gallery, and the code was changed while it was measured.
        """
        if record.provenance.get("dirty") is not False and in_gallery(self.folder):
            raise BadInput(
                f"{self.folder}: in the gallery, and the code was changed before {record.id} was measured; commit or "
                "undo that, and the same command goes on"
            )
        return self._write(record)

    def _write(self, record: Record) -> Path:
        path = self._path(record)
        if "items" in record.samples:
            items = record.samples["items"]
            packed = _pack(items)
            write_atomically(_items_path(path), packed)
            beside = {"count": len(items), "sha256": hashlib.sha256(packed).hexdigest()}
            record = dataclasses.replace(record, samples={**record.samples, "items": beside})
        write_atomically(path, record.to_json())
        return path

    def migrate(self) -> Path | None:
        """Write the records of earlier schemas as this one has them, under its ids and in their machines' folders, when
        the whole store has been copied; the copy's folder, or None where there is none. What is damaged stays. Of two
        records of one cell and machine, one of this schema among them, the one that is worth more stays.
        """
        earlier: dict[Path, Record] = {}
        best: dict[Path, tuple[tuple[int, str], Path]] = {}  # of each record to be: its worth, and where it lies
        for path in self._files():
            with contextlib.suppress(*DAMAGES):
                record = _read(path, items=False)
                if record.schema < SCHEMA:
                    earlier[path] = record
                this, renewed = (record.worth, path), self._path(record)
                best[renewed] = max(this, best.get(renewed, this))
        if not earlier:
            return None
        folder = self.folder.resolve()
        copy = _free(folder.with_name(f"{folder.name}.before-schema-{SCHEMA}"))
        with replaced(copy) as part:
            shutil.copytree(folder, part, dirs_exist_ok=True, ignore=shutil.ignore_patterns(LOCK))
        for path, record in earlier.items():
            renewed = self._path(record)
            if best[renewed][1] == path:
                self._write(_read(path, items=True))
            for file in {path, _items_path(path)} - {renewed, _items_path(renewed)}:
                file.unlink(missing_ok=True)
        return copy

    def _path(self, record: Record) -> Path:
        return self.folder / folder_of(record.machine) / f"{record.id}.json"

    def _files(self) -> list[Path]:
        """Of all records, damaged ones too, less those that were set aside."""
        return sorted(path for folder in [self.folder, *self._machines()] for path in folder.glob("*.json"))

    def _machines(self) -> list[Path]:
        """The folders of machines: not of what was set aside, of another store, or of a model that was written here."""
        folders = [path for path in self.folder.glob("*") if path.is_dir() and path.name != DAMAGED]
        return [path for path in folders if not any((path / name).exists() for name in FOREIGN)]

    @contextlib.contextmanager
    def locked(self) -> Iterator[str]:
        """One run at a time in this folder; the system lets go of the lock when the process ends. Yields what the user
        must know: nothing, or that the file system has no locks. Raises BadInput where another run has the lock, the
        folder cannot be written, or it lies in the gallery and the code is not what a commit holds.
        """
        check_repeatable(self.folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = (self.folder / LOCK).open("ab")
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
            for folder in [self.folder, *self._machines()]:
                for leftover in folder.glob(".writing-*"):
                    leftover.unlink()
            yield ""

    def set_aside(self, path: Path) -> Path:
        """Move a damaged record and its items to damaged/, where nothing reads them and nothing overwrites them."""
        folder = path.parent / DAMAGED
        folder.mkdir(exist_ok=True)
        aside = _free(folder / path.name)
        path.rename(aside)
        with contextlib.suppress(FileNotFoundError):
            _items_path(path).rename(_items_path(aside))
        return aside


def folder_of(machine: str) -> str:
    """The name of a machine's folder."""
    return re.sub("[^a-z0-9]+", "-", machine.lower()).strip("-")


def _read(path: Path, items: bool) -> Record:
    """The record of a file, with its items or their number; raises one of `DAMAGES` where either is damaged."""
    record = _whole(path)
    if "items" in record.samples:
        packed = _checked(_items_path(path), record.samples["items"])
        if items:
            record.samples["items"] = _unpack(packed)
    return record


def _free(path: Path) -> Path:
    """The path, or, where something lies there, the next with a number."""
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.stem}.{number}{path.suffix}")
    return candidate
