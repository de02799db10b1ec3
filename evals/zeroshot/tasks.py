"""The tasks: lm-eval's own definitions over data of this machine or the hub, in one of two protocols.

`v0.4` is lm-eval as it is today. `v0.3` is what the paper ran (lm-eval 0.3.0 and the RWKV author's
script): choices that begin with a space get no second one; context and continuation are tokenised
apart; RWKV's prompts begin with a newline (the last two are evals/ask's).
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

import configs
from evals import hub
from evals.ask.asker import Protocol
from rwkv_core import utf8
from rwkv_core.errors import BadInput, did_you_mean

ROOT = Path(__file__).resolve().parents[2]
QUESTIONS = "questions.json"  # beside a task's items, if some ask the same: for each item, what stands for its question
POCKET = ROOT / "evals" / "pocket" / "data"  # the pocket world's items

Entry = dict[str, Any]


def catalogue() -> dict[str, Entry]:
    """Every task of configs/tasks.yaml by name."""
    return configs.read("tasks")


def entry(name: str) -> Entry:
    """One task's entry. Raises BadInput for an unknown name."""
    if name not in catalogue():
        raise BadInput(f"unknown task {name!r}{did_you_mean(name, catalogue())}")
    return catalogue()[name]


def place(data: str, name: str) -> Path:
    """The folder of a task below a directory of data, or in the pocket world, whether it is there or not."""
    return (POCKET if data == "pocket" else Path(data)) / name


def local_folder(data: str, name: str) -> Path | None:
    """The folder of a task's data, None for the hub's. Raises BadInput where it is gone: the hub's are other data."""
    if hub.revision(data):
        return None
    folder = place(data, name)
    if not folder.is_dir():
        raise BadInput(f"data {data!r}: no folder {name} in there; give one with {name}/<split>.jsonl, or hub")
    return folder


def local_file(folder: Path) -> Path:
    """The file that is scored, `<task>/<split>.jsonl`. Raises BadInput where the folder lacks it."""
    path = folder / f"{entry(folder.name)['split']}.jsonl"
    if not path.is_file():
        names = ", ".join(sorted(p.name for p in folder.iterdir())) or "nothing"
        raise BadInput(f"{path}: this split is what the task scores, and it is missing; the folder holds {names}")
    return path


def questions(folder: Path | None, count: int) -> list[str] | None:
    """What each of the first `count` items asks, where the folder says so. Raises BadInput for a broken list."""
    path = folder / QUESTIONS if folder else None
    if path is None or not path.is_file():
        return None
    try:
        texts = json.loads(utf8.read(path))
    except ValueError as error:
        raise BadInput(f"{path}: broken JSON ({error}); a list with a string for each item is needed") from error
    if not isinstance(texts, list) or len(texts) < count or not all(isinstance(one, str) for one in texts):
        raise BadInput(f"{path}: a list with a string for each of {count} items is needed; or remove the file")
    return texts[:count]


def load(name: str, data: str, protocol: Protocol, docs: int = 0) -> Any:
    """lm-eval's task object, its items loaded. data: a directory with `<task>/<split>.jsonl`, or hub;
    docs: how many items will be scored, 0 for all.

    Raises BadInput where the data cannot be had, or an item is not what the task needs.
    """
    try:  # here, because they take seconds to import
        import datasets
        from lm_eval.tasks import TaskManager
        from lm_eval.utils import env as templates
    except ImportError as error:
        raise BadInput(f"lm-eval cannot be imported ({error}); pip install 'lm-eval>=0.4.13'") from error

    datasets.disable_progress_bars()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of its own tasks' defaults
    if not hasattr(templates.from_string, "cache_info"):  # else each is compiled anew for every item
        templates.from_string = functools.cache(templates.from_string)

    folder = local_folder(data, name)
    path = local_file(folder) if folder else None
    with tempfile.TemporaryDirectory(prefix="rwkv-bench-") as overlays:
        (Path(overlays) / f"{name}.yaml").write_text(overlay(name, data, protocol, docs), encoding="utf-8")
        manager = TaskManager(include_path=overlays, include_defaults=False)
        try:
            task = manager.load([name])["tasks"][name]
        except BadInput:
            raise
        except Exception as error:  # lm-eval tries the first item while it loads; the hub's client has many errors
            why = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
            if path:
                raise BadInput(f"{path}: the first item cannot be used ({why})") from error
            raise BadInput(
                f"{name}: its data are neither cached nor to be had from the hub ({why}); "
                f"put {entry(name)['split']}.jsonl into a folder {name}/ and give the folder above as --data-dir"
            ) from error
    _check_items(task, docs, str(path or name))
    return task


def overlay(name: str, data: str, protocol: Protocol, docs: int = 0) -> str:
    """The YAML that sends lm-eval's own task file to these data, and takes what the protocol changes."""
    import lm_eval.tasks

    task_entry = entry(name)
    lines: Entry = {"include": str(Path(lm_eval.tasks.__file__).parent / task_entry["definition"])}
    if protocol == "v0.3" and task_entry.get("own_space"):
        lines["target_delimiter"] = ""
    folder = local_folder(data, name)
    if folder is None:
        lines["dataset_kwargs"] = {"revision": hub.revision(data)}
    else:
        lines |= dict.fromkeys(("training_split", "validation_split", "test_split"))
        lines[f"{task_entry['split']}_split"] = task_entry["split"]
        keys = ("fields", "answer", "answers", "split")
        lines["dataset_kwargs"] = {key: task_entry[key] for key in keys if key in task_entry}
        lines["dataset_kwargs"] |= {"path": str(local_file(folder)), "docs": docs}
    function = "custom_dataset: !function evals.zeroshot.data.dataset\n" if folder else ""
    return yaml.safe_dump(lines) + function


def items(task: Any, docs: int) -> Iterator[Any]:
    """The items that are scored, in their order."""
    return itertools.islice(task.task_docs, docs or None)


def _check_items(task: Any, docs: int, where: str) -> None:
    """Every item has choices and its answer is one of them. Raises BadInput naming the item."""
    for number, doc in enumerate(items(task, docs), 1):
        try:
            if task.OUTPUT_TYPE != "multiple_choice":
                task.doc_to_text(doc), task.doc_to_target(doc)
                continue
            choices = task.doc_to_choice(doc)
            gold = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
        except Exception as error:  # templates and functions of lm-eval's tasks raise whatever they like
            raise BadInput(f"{where}, item {number}: cannot be used ({type(error).__name__}: {error})") from error
        if not choices:
            raise BadInput(f"{where}, item {number}: there is nothing to choose from")
        if not (gold in choices if isinstance(gold, str) else 0 <= gold < len(choices)):
            raise BadInput(f"{where}, item {number}: the answer {gold!r} is none of its {len(choices)} choices")


def fingerprint(task: Any, docs: int) -> str:
    """Of the content of every item that is scored, wherever it was read from."""
    digest = hashlib.sha256()
    for doc in items(task, docs):
        digest.update(json.dumps(doc, sort_keys=True).encode())
    return digest.hexdigest()[:16]
