"""A task's items from this machine: `<task>/<split>.jsonl` below a directory, one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from evals import labels
from rwkv_core import utf8
from rwkv_core.errors import BadInput

Answers = list[int] | Literal["text"] | None  # what an item's answer may be: see configs/tasks.yaml


def dataset(path: str, fields: list[str], answer: str, split: str, docs: int, answers: Answers = None, **_: Any) -> Any:
    """What lm-eval asks for instead of a hub data set: {split: items}, with the fields that the task reads;
    the first `docs` of them, 0 for all.

    Raises BadInput naming file and line.
    """
    from datasets import Dataset

    rows = read(Path(path), fields, answer, docs, answers)
    try:
        return {split: Dataset.from_list(rows)}
    except (ValueError, TypeError) as error:  # pyarrow's: a field that is a string here and a number there
        raise BadInput(f"{path}: the items have fields of different types ({_first_line(error)})") from error


def read(
    path: Path, fields: Iterable[str], answer: str, docs: int = 0, answers: Answers = None
) -> list[dict[str, Any]]:
    """The items of a file, the first `docs` or all. answers: see configs/tasks.yaml; numbers come as such and text as
    text, whatever a spreadsheet has made of them.

    Raises BadInput for broken JSON, a missing field, no answer or one that cannot be, no choices or no items.
    """
    rows = []
    for number, line in enumerate(utf8.lines(path), 1):
        if line.strip():
            rows.append(_item(line, f"{path}, line {number}", fields, answer, answers))
        if len(rows) == docs > 0:
            break
    if not rows:
        raise BadInput(f"{path}: no items in there; one JSON object a line is needed")
    return rows


def _item(line: str, where: str, fields: Iterable[str], answer: str, answers: Answers) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # of JSON that is nested too deeply
        raise BadInput(f"{where}: broken JSON ({error}); is the file whole?") from error
    if not isinstance(row, dict):
        raise BadInput(f"{where}: a JSON object is needed, not {type(row).__name__}")
    name = f"{where} (item {identity})" if (identity := row.get("id", row.get("idx"))) is not None else where
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise BadInput(f"{name}: {half!r} is half of a surrogate pair, which is no text; mend the item") from error
    for field in fields:
        if field not in row:
            raise BadInput(f"{name}: the field {field!r} is missing; it has {', '.join(row)}")
        if _empty(row[field]):
            raise BadInput(f"{name}: {field!r} is empty: there is nothing to choose from")
        if field != answer and _null(row[field]):
            raise BadInput(f"{name}: {field!r} holds null, which would be asked as the word None")
    if answers and (number := labels.whole(row[answer])) is not None:
        row[answer] = str(number) if answers == "text" else number
    if row[answer] in (None, "", -1, "-1"):
        raise BadInput(f"{name}: no answer ({answer!r} is {row[answer]!r}); such an item cannot be scored")
    if isinstance(answers, list) and row[answer] not in answers:
        raise BadInput(f"{name}: {answer!r} is {row[answer]!r}, none of {', '.join(map(str, answers))}")
    return {field: row[field] for field in fields}


def _empty(value: Any) -> bool:
    """A list without entries, or an object with such a list."""
    if isinstance(value, Mapping):
        return any(_empty(part) for part in value.values())
    return isinstance(value, list) and not value


def _null(value: Any) -> bool:
    """Null, or a list or an object with a null in it."""
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return value is None or any(map(_null, parts))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
