"""Text files, the same on every machine: UTF-8 whatever the locale says, and refused where they are something else."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from rwkv_core.errors import BadInput

LINE_END = re.compile("\r*\n|\r")  # Unix, Windows, Windows written twice over (CR CR LF), old Macintosh
MEND = "save it as UTF-8"


def read(path: Path) -> str:
    """The text of a UTF-8 file. A byte order mark is no part of it, and each line ends with a line feed alone, however
    the file ends its lines: the same words have the same tokens. Raises BadInput naming the first byte that is not
    UTF-8.
    """
    content = path.read_bytes()
    text = _unmarked(path, content)
    return LINE_END.sub("\n", _decoded(path, text, len(content) - len(text)))


def lines(path: Path) -> Iterator[str]:
    """The same line by line, without line ends; the file is never in memory as a whole."""
    place = 0
    with path.open("rb") as file:
        for number, line in enumerate(file):
            content = _unmarked(path, line) if number == 0 else line
            text = _decoded(path, content, place + len(line) - len(content))
            yield from LINE_END.split(re.sub("\r*\n$", "", text))
            place += len(line)


def _unmarked(path: Path, content: bytes) -> bytes:
    """The beginning of a file without a byte order mark."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content[:2]:
        raise BadInput(f"{path}: UTF-16 or UTF-32, not UTF-8 text (byte 0 on); {MEND}")
    return content.removeprefix(codecs.BOM_UTF8)


def _decoded(path: Path, content: bytes, place: int) -> str:
    """place: of the content's first byte in the file."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        where = f"{error.reason} at byte {place + error.start}"
        raise BadInput(f"{path}: not UTF-8 text ({where}); {MEND}") from error
    if (zero := content.find(0)) >= 0:  # UTF-16 without a mark may be valid UTF-8, but for these
        raise BadInput(f"{path}: UTF-16, UTF-32 or no text, not UTF-8 text (a zero at byte {place + zero}); {MEND}")
    return text
