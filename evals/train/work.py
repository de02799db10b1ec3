"""Where a training keeps what it goes on from: a folder a training, named by all that the training depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from rwkv_core.spec import LanguageModel

WORK = Path(__file__).resolve().parents[2] / "results" / "work"


def place(work: str) -> Path:
    """The folder that an experiment's parameter `work` stands for; empty for results/work."""
    return Path(work or WORK)


def folder(work: str, name: str, key: Iterable[str | np.ndarray], digits: int) -> Path:
    """In `work` a folder NAME-HASH, with so many hexadecimal digits of the SHA-256 of the key's parts, one after the
    other: texts, and the bytes of arrays.
    """
    digest = hashlib.sha256()
    for part in key:
        digest.update(part.encode() if isinstance(part, str) else part.tobytes())
    return place(work) / f"{name}-{digest.hexdigest()[:digits]}"


def folder_of_model(work: str, model: LanguageModel, *settings: object) -> Path:
    """A folder for each beginning, the model's weights as they are, and each set of settings; an array of tokens among
    them stands for its content.
    """
    key = (setting if isinstance(setting, np.ndarray) else f"{setting} " for setting in settings)
    return folder(work, model.spec.name, [model.fingerprint(), *key], digits=10)
