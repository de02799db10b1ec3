"""What stands for a file in a cell's name: its content, wherever on this machine it lies.

Each function takes the value of the parameter and all parameters, and returns what goes into the name and the path.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evals.language import corpus
from evals.pocket import text as pocket
from rwkv_core import text as tokenizers
from rwkv_core.errors import BadInput
from rwkv_core.files import SHORT, fingerprint, together

POCKET_TOKENIZER = Path(pocket.__file__).with_name("checkpoints") / "tokenizer.json"
POCKET_SAMPLE = 1000  # pieces, and sentences, by which the pocket world's text is known


def tokenizer(value: str, params: Mapping[str, Any]) -> tuple[str, str]:
    """A tokenizer.json or World vocabulary, the pocket world's, or the model's own."""
    if value == "own":
        return "own", "own"
    path = POCKET_TOKENIZER if value == corpus.POCKET else Path(value)
    if not path.is_file():
        raise BadInput(f"tokenizer {value!r}: no such file; give a tokenizer.json, a World vocabulary, pocket, or own")
    return f"file:{tokenizers.content(path)[:SHORT]}", str(path.resolve())


def text(value: str, params: Mapping[str, Any]) -> tuple[str, str]:
    """The pocket world's text, or a folder of text files."""
    if value == corpus.POCKET:
        return f"pocket:{_pocket()}", corpus.POCKET
    return f"local:{together(map(fingerprint, corpus.files(value)))}", str(Path(value).resolve())


@functools.cache
def _pocket() -> str:
    chronicle = pocket.joined(next(pocket.chronicles(0, POCKET_SAMPLE)))
    return together([*itertools.islice(pocket.pieces(0), POCKET_SAMPLE), chronicle])


def place(value: str, params: Mapping[str, Any]) -> tuple[str, str]:
    """A folder that is written to; it changes nothing that is measured."""
    return "", str(Path(value).resolve()) if value else ""
