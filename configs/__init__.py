"""What is measured, as data, and the one reader of it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent


@functools.cache
def read(name: str) -> dict[str, Any]:
    """What NAME.yaml says; of a folder NAME, what each of its files says, by its name without ending, in their order.

    Read once a process: nobody changes what comes back.
    """
    path = ROOT / name
    if path.is_dir():
        return {file.stem: _parsed(file) for file in sorted(path.glob("*.yaml"))}
    return _parsed(path.with_suffix(".yaml"))


def _parsed(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content
