"""What stands for a file in a cell's name: its content, wherever on this machine it lies.

Each function takes the parameter as given and all parameters, and returns what goes into the name and the path.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from evals import corpus
from evals.pocket import text as pocket
from rwkv_core.spec import BadInput

POCKET_SAMPLE = 1000  # pieces, and sentences, by which the pocket world's text is known


def fingerprint(path: Path, *beside: Path) -> str:
    """Of a file's bytes, and of those beside it that are there."""
    content = b"".join(p.read_bytes() for p in (path, *beside) if p is path or p.is_file())
    return hashlib.sha256(content).hexdigest()[:12]


def tokenizer(given: str, params: Mapping[str, Any]) -> tuple[str, str]:
    """A tokenizer.json, or the model's own."""
    if given == "own":
        return "own", "own"
    if not Path(given).is_file():
        raise BadInput(f"tokenizer {given!r}: no such file; give a tokenizer.json, or own")
    return f"file:{fingerprint(Path(given))}", str(Path(given).resolve())


def text(given: str, params: Mapping[str, Any]) -> tuple[str, str]:
    """The pocket world's text, or a folder of text files."""
    if given == corpus.POCKET:
        chronicle = pocket.joined(next(pocket.chronicles(0, POCKET_SAMPLE)))
        sample = [*itertools.islice(pocket.pieces(0), POCKET_SAMPLE), chronicle]
        return f"pocket:{_together(sample)}", corpus.POCKET
    return f"local:{_together(map(fingerprint, corpus.files(given)))}", str(Path(given).resolve())


def _together(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def place(given: str, params: Mapping[str, Any]) -> tuple[str, str]:
    """A folder that is written to; it changes nothing that is measured."""
    return "", str(Path(given).resolve()) if given else ""
