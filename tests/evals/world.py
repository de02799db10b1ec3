"""Small task data in the hub's own fields and a small tokenizer, made here: text of our own, for tests."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from evals.pocket.make import bpe
from evals.zeroshot import tasks

NOUNS = ["lantern", "river", "orchard", "ferry", "violin", "kettle", "harbour", "meadow", "ladder", "bakery"]
VERBS = ["warms", "follows", "repairs", "crosses", "paints", "carries", "finds", "closes"]
LETTERS = "ABCD"
ITEMS = 12


def sentence(rng: random.Random) -> str:
    return f"The {rng.choice(NOUNS)} {rng.choice(VERBS)} the {rng.choice(NOUNS)} near the {rng.choice(NOUNS)}."


def item(task: str, rng: random.Random) -> dict[str, Any]:
    """One item with the fields that the hub's data set has; its answer is right by decree."""
    four = [" ".join(rng.sample(NOUNS, rng.randint(1, 4))) for _ in range(4)]
    passage = " ".join(sentence(rng) for _ in range(rng.randint(2, 6)))
    choices = {"text": four, "label": list(LETTERS)}
    match task:
        case "arc_easy" | "arc_challenge":
            return {"id": "x", "question": sentence(rng), "choices": choices, "answerKey": rng.choice(LETTERS)}
        case "openbookqa":
            return {"id": "x", "question_stem": sentence(rng), "choices": choices, "answerKey": rng.choice(LETTERS)}
        case "boolq":
            return {"passage": passage, "question": "is it so", "label": rng.randrange(2)}
        case "copa":
            asked = rng.choice(["cause", "effect"])
            first, second = sentence(rng), sentence(rng)
            return {
                "premise": sentence(rng),
                "choice1": first,
                "choice2": second,
                "question": asked,
                "label": rng.randrange(2),
            }
        case "headqa_en":
            answers = [{"aid": i, "atext": text} for i, text in enumerate(four, 1)]
            return {"qtext": sentence(rng), "ra": rng.randint(1, 4), "answers": answers}
        case "hellaswag":
            endings = [f"{rng.choice(VERBS)} the {text}." for text in four]
            return {
                "activity_label": "Work",
                "ctx_a": sentence(rng),
                "ctx_b": "they",
                "endings": endings,
                "label": str(rng.randrange(4)),
            }
        case "lambada_openai":
            return {"text": passage.rstrip(".")}
        case "piqa":
            return {
                "goal": f"How to do it: {sentence(rng)}",
                "sol1": passage,
                "sol2": passage + " Then stop.",
                "label": rng.randrange(2),
            }
        case "record":
            names = rng.sample(NOUNS, 5)
            query = f"It was the @placeholder that {rng.choice(VERBS)} it."
            return {
                "passage": f"{passage}\n@highlight\n{sentence(rng)}",
                "query": query,
                "entities": names,
                "answers": names[: rng.randint(1, 2)],
            }
        case "sciq":
            a, b, c, d = rng.sample(NOUNS, 4)
            return {
                "question": sentence(rng),
                "support": passage,
                "distractor1": a,
                "distractor2": b,
                "distractor3": c,
                "correct_answer": d,
            }
        case "winogrande":
            first, second = rng.sample(NOUNS, 2)
            text = f"The {first} did not fit the {second} because the _ was too large for it."
            return {"sentence": text, "option1": first, "option2": second, "answer": rng.choice("12")}
        case "rte" | "wnli":
            return {"sentence1": passage, "sentence2": sentence(rng), "label": rng.randrange(2)}
        case "mathqa":
            return {
                "Problem": "what is 2 + 3 ?",
                "options": "a ) 5 , b ) 6 , c ) 7 , d ) 8 , e ) 9",
                "correct": rng.choice("abcde"),
            }
        case "triviaqa":
            return {"question": sentence(rng), "answer": {"aliases": rng.sample(NOUNS, 2)}}
    raise KeyError(task)


def write(folder: Path, items: int = ITEMS, seed: int = 0) -> Path:
    """Every task of configs/tasks.yaml as `<task>/<split>.jsonl`."""
    for name, entry in tasks.catalogue().items():
        rng = random.Random(f"{seed} {name}")
        rows = "".join(json.dumps(item(name, rng)) + "\n" for _ in range(items))
        (folder / name).mkdir(parents=True)
        (folder / name / f"{entry['split']}.jsonl").write_text(rows)
    return folder


def tokenizer(path: Path, vocabulary: int = 400) -> Path:
    """A byte-level BPE trained on the same kind of text."""
    rng = random.Random(1)
    return bpe([sentence(rng) for _ in range(500)], vocabulary, path)
