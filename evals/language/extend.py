"""The extend experiment: progressive context extension (paper v2, sec. 5.2), and what each stage gives."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import configs
from evals import identity
from evals.experiment import AtLeast, Experiment, OneOf
from evals.language import corpus
from evals.language.context import against_context, identified, levels
from evals.language.pretrain import NextToken, check_trainable
from evals.train.loop import train
from evals.train.recipe import Recipe
from evals.train.work import folder_of_model
from rwkv_core.errors import BadInput, Unsupported
from rwkv_core.spec import Trainable

VERSION = 2


def schedules() -> dict[str, list[dict[str, Any]]]:
    """The stages of configs/schedules.yaml by name."""
    return configs.read("schedules")


def run(
    model: Trainable,
    *,
    device: str,
    text: str,
    schedule: Annotated[str, OneOf(schedules)],
    tokenizer: str = "own",
    batch_tokens: Annotated[int, AtLeast(1)] = 4096,
    reach: Annotated[int, AtLeast(0)] = 0,
    documents: Annotated[int, AtLeast(2)] = 64,
    autocast: bool = False,
    work: str = "",
    out: str = "",
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train a model on at longer and longer windows, and measure its loss against context after each stage.

    text: pocket, or a folder of text files, of which a part is held out.
    schedule: the stages: a name of configs/schedules.yaml.
    tokenizer: own, pocket (that world's), a tokenizer.json or a World vocabulary.
    batch_tokens: of a batch in every stage; at least one window.
    reach: the losses are measured at every length up to it, and the pocket world's documents are so long; 0 for the
        last window.
    documents: how many the losses are measured on.
    autocast: train in bfloat16 where that is safe.
    work: a folder for what a later run goes on from; empty for results/work.
    out: a folder that takes the trained model, `<out>/<model's name>`, in bfloat16; empty for none.

    Returns, in samples, `stages`: for each, beginning with the model as it came, its window, the tokens trained on, the
    seconds, and the losses of the context experiment; and `levels` as there. Raises BadInput where the text is too
    short for the schedule.
    """
    stages = schedules()[schedule]
    last = stages[-1]["window"]
    reach = reach or last
    limit, longest = model.spec.max_tokens, max(last, reach)
    if limit is not None and limit < longest:
        raise Unsupported(f"{model.spec.name} has {limit} learned positions, not {longest}")
    check_trainable(model)
    model = copy.deepcopy(model)
    encode, end = corpus.codec(model, tokenizer)
    needed = sum(stage["tokens"] for stage in stages) + 1
    tokens = corpus.stream(text, encode, end, needed, held_out=False, long=reach + 1)
    if len(tokens) < needed:
        raise BadInput(f"text {text!r}: {len(tokens):,} tokens to train on, and {schedule} takes {needed:,}")
    rows = corpus.segments(text, encode, reach + 1, documents)
    measure = functools.partial(against_context, model, rows, max(1, batch_tokens // reach), device)
    curves: list[dict[str, Any]] = [{"window": model.spec.context_length, "tokens": 0, "seconds": 0.0, **measure()}]
    begin = 0
    for number, stage in enumerate(stages, 1):
        window, rate = stage["window"], float(stage["rate"])
        batch = max(1, batch_tokens // window)
        recipe = Recipe(stage["tokens"] // (batch * window), rate, rate, seed=number, autocast=autocast)
        part = tokens[begin : begin + stage["tokens"] + 1]
        begin += stage["tokens"]
        folder = folder_of_model(work, model, device, VERSION, part, recipe, window, batch)
        batches = corpus.windows(part, window, batch, number)
        log = train(NextToken(model), batches, recipe, folder, device=device, label=f"{model.spec.label} at {window}")
        seconds = sum(entry["seconds"] for entry in log)
        curves.append({"window": window, "tokens": stage["tokens"], "seconds": seconds, **measure()})
    if out:
        model.spec = dataclasses.replace(model.spec, context_length=last)
        model.save(Path(out) / f"{model.spec.name}-{last}")
    trained = sum(curve["tokens"] for curve in curves)
    metrics = {**identified(rows), "tokens": trained, "train_s": sum(c["seconds"] for c in curves)}
    return metrics, {"stages": curves, "levels": levels(text, encode, reach + 1, documents)}


def definition(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The stages that configs/schedules.yaml has under the schedule's name."""
    return schedules()[params["schedule"]]


EXPERIMENT = Experiment(
    run,
    version=VERSION,
    reads={"text": identity.text, "tokenizer": identity.tokenizer, "work": identity.place, "out": identity.place},
    definition=definition,
)
