"""Items for the twelve tasks, with exactly the fields of the hub's data sets, so that lm-eval's own tasks run on them.

Each maker draws an item and the fact that answers it. A test item's fact is one that is held out. If it follows from
others (this thing floats, since it is of wood and wood floats), training text states it nowhere, in no wording; if
it is a thing's material or something known of a resident, not in the wording of the item. Where a passage tells it,
the fact is the whole passage with its question: were it only the answer (this thing is in that room), a model would
learn which answers never occur, and score below chance.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from evals.pocket import knowledge, passages
from evals.pocket.items import FactAndItem, Item
from evals.pocket.world import Split, held_out
from evals.zeroshot import tasks as catalogue

ITEMS = 400  # a task
PATIENCE = 500  # draws without an item of a new fact of a kind, after which facts of it are asked for once more
MAKERS: dict[str, Callable[[random.Random, Split], FactAndItem]] = {
    "arc_easy": knowledge.arc_easy,
    "arc_challenge": knowledge.arc_challenge,
    "boolq": passages.boolq,
    "copa": knowledge.copa,
    "headqa_en": knowledge.headqa_en,
    "hellaswag": knowledge.hellaswag,
    "lambada_openai": passages.lambada_openai,
    "openbookqa": knowledge.openbookqa,
    "piqa": knowledge.piqa,
    "record": passages.record,
    "sciq": passages.sciq,
    "winogrande": passages.winogrande,
}
TASKS = list(MAKERS)


def question(fact: tuple[str, ...], item: Item, number: int) -> str:
    """What an item asks, whoever it asks it of: items of one question are not independent. Where a passage tells the
    answer, every item is a question of its own.
    """
    if fact[0] in ("told", "gift"):
        return str(number)
    if fact[0] == "meant":  # which of two, by which clause
        return str(item["sentence"]).replace(fact[1], "one").replace(fact[2], "other")
    names = {"came of": 1, "next step": 1}.get(fact[0], 0)  # a name ends these
    return " ".join((*fact[: len(fact) - names], str(item.get("question", "")) if names else "")).strip()


def draw_item(task: str, rng: random.Random, split: Split) -> Item:
    """An item of a task whose fact is in the split."""
    return _draw(task, rng, split)[1]


def _draw(task: str, rng: random.Random, split: Split) -> FactAndItem:
    while True:
        fact, item = MAKERS[task](rng, split)
        if held_out(*fact) == (split == "test"):
            return fact, item


def write(folder: Path, items: int = ITEMS, seed: int = 0) -> Path:
    """Every task's test items as `<task>/<split>.jsonl` below `folder`, no two of a task alike but for their order, and
    no fact asked for more often than others of its kind, in the kinds' shares that the makers draw. Beside them
    questions.json, the question of each.
    """
    for task in TASKS:
        rng = random.Random(f"{seed} {task} test")
        lines: dict[tuple[str, ...], str] = {}
        counts: Counter[tuple[str, ...]] = Counter()
        questions: list[str] = []
        rounds: Counter[str] = Counter()
        kind, rejections = None, 0
        while len(lines) < items:
            fact, item = _draw(task, rng, "test")
            kind = kind or fact[0]
            words = re.findall(r'"([^"]{2,})"', json.dumps(item))
            key = (*prompt(task, item), *sorted(words))
            if fact[0] == kind and counts[fact] <= rounds[kind] and key not in lines:
                counts[fact] += 1
                questions.append(question(fact, item, len(lines)))
                lines[key] = json.dumps(item)
                kind, rejections = None, 0
            elif (rejections := rejections + 1) > PATIENCE:
                rounds[kind] += 1
                rejections = 0
        (folder / task).mkdir(parents=True, exist_ok=True)
        (folder / task / catalogue.QUESTIONS).write_text(json.dumps(questions, indent=0) + "\n", encoding="utf-8")
        path = folder / task / f"{catalogue.entry(task)['split']}.jsonl"
        path.write_text("\n".join(lines.values()) + "\n", encoding="utf-8")
    return folder


def prompt(task: str, item: Item) -> tuple[str, str]:
    """What lm-eval sends for the item, and its right answer (a test compares)."""
    match task:
        case "arc_easy" | "arc_challenge":
            return f"Question: {item['question']}\nAnswer:", _right_choice(item)
        case "openbookqa":
            return item["question_stem"], _right_choice(item)
        case "boolq":
            return f"{item['passage']}\nQuestion: {item['question']}?\nAnswer:", ("no", "yes")[item["label"]]
        case "copa":
            joint = {"cause": "because", "effect": "therefore"}[item["question"]]
            choice = (item["choice1"], item["choice2"])[item["label"]]
            return f"{item['premise'][:-1]} {joint}", f" {choice[0].lower()}{choice[1:]}"
        case "headqa_en":
            return f"Question: {item['qtext']}\nAnswer:", item["answers"][item["ra"] - 1]["atext"]
        case "hellaswag":
            before = f"{item['activity_label']}: {item['ctx_a']} {item['ctx_b'].capitalize()}"
            return before, item["endings"][int(item["label"])]
        case "lambada_openai":
            before, last = item["text"].rsplit(" ", 1)
            return before, f" {last}"
        case "piqa":
            return f"Question: {item['goal']}\nAnswer:", (item["sol1"], item["sol2"])[item["label"]]
        case "record":
            passage, highlight = item["passage"].split("\n@highlight\n")
            answer = item["query"].replace("@placeholder", item["answers"][0])
            return f"{passage}\n\n  - {highlight}.\n", f"  - {answer}"
        case "sciq":
            return f"{item['support']}\nQuestion: {item['question']}\nAnswer:", item["correct_answer"]
        case "winogrande":
            before, after = item["sentence"].split("_")
            return before + item[f"option{item['answer']}"], after.strip()
    raise KeyError(task)


def _right_choice(item: Item) -> str:
    return str(item["choices"]["text"][item["choices"]["label"].index(item["answerKey"])])
