"""The prompts experiment: one model, one task, one order of question and text, answered in one way."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

import configs
from evals import hub, identity
from evals.ask.asker import Asker
from evals.experiment import AtLeast, Experiment, OneOf
from evals.prompts import answers, chats, readers, tasks
from evals.prompts import items as prompt_items
from evals.zeroshot import tasks as zeroshot
from rwkv_core.errors import BadInput, Unsupported
from rwkv_core.files import fingerprint
from rwkv_core.spec import LanguageModel

VERSION = 3  # of 2 on: which items were cut, and which ask the same; of 3 on: special tokens as lm-eval has them

UNTIL = ["\n\n"]  # a generated answer ends there, unless it reasons


def run(
    model: LanguageModel,
    *,
    device: str,
    task: Annotated[str, OneOf(tasks.catalogue)],
    order: str,
    way: Literal["score", "generate"] = "score",
    data: str = "hub",
    tokenizer: str = "own",
    docs: Annotated[int, AtLeast(0)] = 0,
    form: Literal["plain", "chat"] = "plain",
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ask a task's items with the question first or last.

    task: a file of configs/prompts.
    order: a name in that file.
    way: score: the probability of each label's words after the prompt, all wordings together. generate: a text,
        greedily, in which a label is looked for (answers.parse).
    data: a folder with the task's files, pocket (the embedded world's), or hub (or hub:COMMIT).
    tokenizer: own, pocket (that world's), a tokenizer.json or a World vocabulary.
    docs: the first so many items; 0 for all.
    form: plain: the prompt, and "Answer:" after it. chat: as a turn of the chat that the model was tuned to.

    Returns the metrics and floors, and `items`: for each its right labels and the one that was answered, None where a
    generated text names none or several; `cut` where the window held only the prompt's end; `question`, the same number
    for items that ask the same. Raises Unsupported for missing data, and for a
    chat with a model that was not tuned to one.
    """
    entry = tasks.catalogue()[task]
    wording = tasks.order(entry, order)
    if wording.reasoning and way == "score":
        raise BadInput(f"{task}, {order}: reasoning can only be generated; write `way: generate`")
    examples = prompt_items.load(entry, data if hub.revision(data) else str(_folder(data)), docs)
    asker = Asker.of(model, device, tokenizer, "v0.4", label=f"{task} {order} {model.spec.label}")
    chat = chats.template(model.spec) if form == "chat" else ""
    prompts = [prompt_items.prompt(entry, wording, item, chat) for item in examples]
    stop = [chats.stop(model.spec)] if chat else []
    space = "" if chat.endswith("\n") else " "  # before the words of an answer
    started = time.perf_counter()
    items = (
        _scored(asker, entry, prompts, space) if way == "score" else _generated(asker, entry, wording, prompts, stop)
    )
    numbers, room = _questions(data, entry, examples), _room(asker, entry, way, space)
    for number, (item, row) in enumerate(zip(examples, items, strict=True)):
        row |= {"doc": number, "gold": list(item.gold), "question": numbers[number]}
        row["cut"] = len(asker.tok_encode(prompts[number])) > room
    metrics = {
        "docs": len(items),
        "labels": len(entry.labels),
        "unparsed": sum(item["answer"] is None for item in items),
        "cut": sum(item["cut"] for item in items),
        **dict(asker.counts),
        "score_s": time.perf_counter() - started,
        "data_fingerprint": prompt_items.fingerprint(examples),
        "special_tokens": asker.special_tokens,
        "parameters": model.parameter_count,
    }
    return metrics, {"items": items}


def _scored(asker: Asker, task: tasks.Task, prompts: Sequence[str], space: str) -> list[dict[str, Any]]:
    words = [(number, space + word) for number, label in enumerate(task.labels) for word in task.answers[label]]
    scores = iter(asker.score([(prompt, word) for prompt in prompts for _, word in words]))
    items = []
    for _ in prompts:
        row = np.full(len(task.labels), -np.inf)
        for (number, _), (loglikelihood, _) in zip(words, scores, strict=False):
            row[number] = np.logaddexp(row[number], loglikelihood)
        items.append({"answer": int(row.argmax()), "loglikelihoods": row.round(5).tolist()})
    return items


def _generated(
    asker: Asker, task: tasks.Task, wording: tasks.Order, prompts: Sequence[str], stop: list[str]
) -> list[dict[str, Any]]:
    if task.new_tokens >= asker.max_length:
        raise Unsupported(
            f"{asker.spec.name}: a window of {asker.max_length} has no room for {task.new_tokens} new tokens"
        )
    options = {"until": stop + ([] if wording.reasoning else UNTIL), "max_gen_toks": task.new_tokens}
    texts = asker.generate([(prompt, options) for prompt in prompts])
    labels = [answers.parse(text, task.answers, wording.reasoning) for text in texts]
    return [
        {"answer": None if label is None else task.labels.index(label), "text": text}
        for label, text in zip(labels, texts, strict=True)
    ]


def _room(asker: Asker, task: tasks.Task, way: str, space: str) -> int:
    """How many tokens of a prompt the window holds beside the longest label, whose last token is not fed, or beside the
    text that is generated.
    """
    if way == "generate":
        return asker.max_length - task.new_tokens
    lengths = (len(asker.codec.encode(space + word)) for words in task.answers.values() for word in words)
    return asker.max_length + 1 - max(lengths)


def _questions(data: str, task: tasks.Task, examples: Sequence[prompt_items.Item]) -> list[int]:
    """A number for each item, the same where the data's folder says that they ask the same, or the items do."""
    folder = None if hub.revision(data) else readers.paths(task, _folder(data))[0].parent
    questions = zeroshot.questions(folder, len(examples))
    numbers: dict[str, int] = {}
    return [numbers.setdefault(key, len(numbers)) for key in questions or map(repr, examples)]


def _folder(data: str) -> Path:
    return zeroshot.POCKET if data == "pocket" else Path(data)


def identify_data(data: str, params: Mapping[str, Any]) -> tuple[str, str]:
    """The task's files by their content."""
    task = tasks.catalogue()[params["task"]]
    if revision := hub.revision(data):
        return hub.identified(task.hub["path"], revision) if task.hub else ("hub", "hub")
    folder, kind = _folder(data), "pocket" if data == "pocket" else "local"
    if not folder.is_dir():
        raise BadInput(f"data {data!r}: no such folder; give one with the files of configs/prompts, pocket, or hub")
    path, *beside = readers.paths(task, folder)
    beside.append(path.with_name(zeroshot.QUESTIONS))
    digest = fingerprint(path, *beside) if path.is_file() else "nothing"
    return f"{kind}:{digest}", data if data == "pocket" else str(folder.resolve())


def definition(params: Mapping[str, Any]) -> dict[str, Any]:
    """What configs/prompts say of a task and an order that changes its scores."""
    task = tasks.catalogue()[params["task"]]
    entry = {key: getattr(task, key) for key in ("file", "reader", "fields", "gold", "labels", "answers", "new_tokens")}
    chat = {"chats": configs.read("chats")} if params.get("form") == "chat" else {}
    return {**entry, "order": dataclasses.asdict(tasks.order(task, params["order"])), **chat}


EXPERIMENT = Experiment(
    run, version=VERSION, reads={"data": identify_data, "tokenizer": identity.tokenizer}, definition=definition
)
