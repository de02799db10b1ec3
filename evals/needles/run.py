"""The needles experiment: a fact somewhere in a long text, asked for at its end, of models that are trained."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from evals import identity
from evals.ask.asker import Asker
from evals.experiment import AtLeast, Experiment, OneOf
from evals.needles.haystacks import TASKS, Needle
from rwkv_core.errors import Unsupported
from rwkv_core.spec import LanguageModel

VERSION = 2  # of 2 on: special tokens as lm-eval has them

CONTROL = re.compile(r"[\x00-\x1f]")


def run(
    model: LanguageModel,
    *,
    device: str,
    task: Annotated[str, OneOf(lambda: TASKS)],
    length: Annotated[int, AtLeast(32)],
    docs: Annotated[int, AtLeast(2)] = 100,
    tokenizer: str = "own",
    seed: Annotated[int, AtLeast(0)] = 0,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Hide a fact in long texts and ask for it. The model reads on beyond the window it was trained on, where its
    architecture can: nothing is cut.

    task: which fact in which text: see evals/needles/haystacks.py.
    length: tokens at most, the question and room for the answer included (RULER counts without the first words of the
        answer, which it gives).
    docs: texts.
    tokenizer: own, pocket (that world's), a tokenizer.json or a World vocabulary.
    seed: of the texts.

    Returns the accuracy, the floors, the longest prompt in tokens and the bytes of the state or cache after it, and
    `items`, each with its depth (0 to 1, None where the answer stands in no one place), the share of its answers that
    was given, and the answer. Raises Unsupported where the architecture or the task ends before that length.
    """
    asker = Asker.of(model, device, tokenizer, "v0.4", label=f"{task} {length} {model.spec.label}")
    needles = TASKS[task].make(asker.codec.encode, length - len(asker.special_tokens), docs, seed)
    tokens = max(len(asker.tok_encode(needle.prompt)) for needle in needles)
    asker.max_length = max(length, tokens + needles[0].new_tokens)  # RULER counts without the answer's first words
    if model.spec.max_tokens and asker.max_length > model.spec.max_tokens:
        raise Unsupported(f"{model.spec.name} has {model.spec.max_tokens} positions, and {asker.max_length} are needed")
    items = _scored(asker, needles) if needles[0].choices else _generated(asker, needles)
    itemsize = model.itemsize
    metrics = {
        "title": TASKS[task].title,
        "docs": len(needles),
        "accuracy": statistics.fmean(item["share"] for item in items),
        "chance": statistics.fmean(needle.chance for needle in needles),
        "named": statistics.fmean(needle.named for needle in needles),
        "tokens": tokens,
        "special_tokens": asker.special_tokens,
        "trained_tokens": model.spec.context_length,
        "state_bytes": model.spec.state_bytes(tokens, itemsize),
        **dict(asker.counts),
        "parameters": model.parameter_count,
    }
    return metrics, {"items": items}


def _scored(asker: Asker, needles: Sequence[Needle]) -> list[dict[str, Any]]:
    """The likeliest of the choices after the prompt."""
    answers = iter(asker.score([(needle.prompt, choice) for needle in needles for choice in needle.choices]))
    items = []
    for needle in needles:
        likely = [next(answers)[0] for _ in needle.choices]
        prediction = needle.choices[int(np.argmax(likely))]
        items.append({"depth": needle.depth, "share": float(prediction in needle.answers), "answer": prediction})
    return items


def _generated(asker: Asker, needles: Sequence[Needle]) -> list[dict[str, Any]]:
    """RULER's rule: the share of the answers that the text holds, whatever else it says."""
    requests = [(needle.prompt, {"until": [], "max_gen_toks": needle.new_tokens}) for needle in needles]
    items = []
    for needle, text in zip(needles, asker.generate(requests), strict=True):
        normalised = CONTROL.sub("\n", text).lower()
        share = statistics.fmean(answer.lower() in normalised for answer in needle.answers)
        items.append({"depth": needle.depth, "share": share, "answer": text})
    return items


EXPERIMENT = Experiment(run, version=VERSION, reads={"tokenizer": identity.tokenizer})
