"""Files and folders that appear whole or not at all, and what stands for the content of those that lie here.

Standard library only, so that the reports can use it where there is no torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from rwkv_core.errors import BadInput

SHORT = 12  # hexadecimal digits
BLOCK = 1 << 22  # bytes that are read at a time

_digests: dict[tuple[tuple[str | int, ...], ...], str] = {}


def write_atomically(path: Path, content: str | bytes) -> None:
    """The file appears whole or not at all. Raises BadInput where there is no room or no permission."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=".writing-", delete=False) as file:
            temporary = Path(file.name)
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(PermissionError):  # of a file system that has no modes
            temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise BadInput(
            f"{path}: cannot be written ({error.strerror}); free some room or choose another folder"
        ) from error


@contextlib.contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """A new folder to write into, which takes the place of `folder` when all of it is written."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    yield part
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def digest(*paths: Path) -> str:
    """SHA-256 of the bytes of files, one after the other, read once a process for as long as they stay as they are.
    Raises OSError.
    """
    stats = [path.stat() for path in paths]
    state = tuple(
        (str(path), s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for path, s in zip(paths, stats, strict=True)
    )
    if state not in _digests:
        sha256 = hashlib.sha256()
        for path in paths:
            with path.open("rb") as file:
                while block := file.read(BLOCK):
                    sha256.update(block)
        _digests[state] = sha256.hexdigest()
    return _digests[state]


def fingerprint(path: Path, *beside: Path) -> str:
    """Of a file's bytes, and of those beside it that are there. Raises OSError where the file is not."""
    return digest(path, *(p for p in beside if p.is_file()))[:SHORT]


def together(parts: Iterable[str]) -> str:
    """One fingerprint of several."""
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()[:SHORT]


def folder(path: Path) -> str:
    """Of every file below a folder, and where in it they lie."""
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return together(f"{p.relative_to(path)} {digest(p)}" for p in files)
