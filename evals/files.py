"""What stands for a file in a cell's name: its content, wherever on this machine it lies.

Each function takes the parameter as given and all parameters, and returns what goes into the name and the path.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evals import corpus
from evals.pocket import text as pocket
from rwkv_core.errors import BadInput
from rwkv_core.files import commit, fingerprint, together

MAIN = "main"
POCKET_TOKENIZER = Path(pocket.__file__).with_name("checkpoints") / "tokenizer.json"
POCKET_SAMPLE = 1000  # pieces, and sentences, by which the pocket world's text is known


def tokenizer(given: str, params: Mapping[str, Any]) -> tuple[str, str]:
    """A tokenizer.json, the pocket world's, or the model's own."""
    if given == "own":
        return "own", "own"
    path = POCKET_TOKENIZER if given == corpus.POCKET else Path(given)
    if not path.is_file():
        raise BadInput(f"tokenizer {given!r}: no such file; give a tokenizer.json, pocket, or own")
    return f"file:{fingerprint(path)}", str(path.resolve())


def text(given: str, params: Mapping[str, Any]) -> tuple[str, str]:
    """The pocket world's text, or a folder of text files."""
    if given == corpus.POCKET:
        return f"pocket:{_pocket()}", corpus.POCKET
    return f"local:{together(map(fingerprint, corpus.files(given)))}", str(Path(given).resolve())


def hub_revision(data: str) -> str | None:
    """Which revision of the hub's data `hub` or `hub:REVISION` means; None for data that lie here."""
    kind, _, revision = data.partition(":")
    return revision or MAIN if kind == "hub" else None


def hub(repo: str, revision: str | None = None) -> tuple[str, str]:
    """A data set of the hub: `hub:` and the commit that the revision stands for, or hub where nobody knows that."""
    known = commit(repo, revision or MAIN, "dataset")
    name = "hub" if known == MAIN else f"hub:{known}"
    return name, name


@functools.cache
def _pocket() -> str:
    chronicle = pocket.joined(next(pocket.chronicles(0, POCKET_SAMPLE)))
    return together([*itertools.islice(pocket.pieces(0), POCKET_SAMPLE), chronicle])


def place(given: str, params: Mapping[str, Any]) -> tuple[str, str]:
    """A folder that is written to; it changes nothing that is measured."""
    return "", str(Path(given).resolve()) if given else ""
