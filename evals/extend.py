"""The extend experiment: progressive context extension (paper v2, sec. 5.2), and what each stage gives."""

from __future__ import annotations

import copy
import dataclasses
import functools
from pathlib import Path
from typing import Annotated, Any

import yaml

from evals import corpus, files
from evals.context import against_context
from evals.pretrain import NextToken, check_trainable, work_folder
from evals.training import Recipe, train
from rwkv_core.spec import AtLeast, LanguageModel, OneOf, Unsupported

VERSION = 1
ALONE = False
SHAPE_ONLY = False
GROWS = ()

SCHEDULES_FILE = Path(__file__).resolve().parents[1] / "configs" / "schedules.yaml"


@functools.cache
def schedules() -> dict[str, list[dict[str, Any]]]:
    """The stages of configs/schedules.yaml by name."""
    found: dict[str, list[dict[str, Any]]] = yaml.safe_load(SCHEDULES_FILE.read_text())
    return found


def run(
    model: LanguageModel,
    *,
    device: str,
    text: str,
    schedule: Annotated[str, OneOf(schedules)],
    tokenizer: str = "own",
    batch_tokens: Annotated[int, AtLeast(1)] = 4096,
    documents: Annotated[int, AtLeast(2)] = 64,
    autocast: bool = False,
    work: str = "",
    out: str = "",
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train on at longer and longer windows. text, tokenizer: see pretrain. schedule: a name of configs/schedules.yaml.
    batch_tokens: of a batch in every stage, at least one window. documents: how many the losses are measured on, at
    every length up to the last window. work, out: see pretrain.

    Returns, in samples, `stages`: for each, beginning with the model as it came, its window, the tokens trained on,
    the seconds, and the curve of the context experiment.
    """
    stages = schedules()[schedule]
    last = stages[-1]["window"]
    limit = model.spec.max_tokens or last
    if limit < last:
        raise Unsupported(f"{model.spec.name} has {limit} learned positions; {schedule} ends with windows of {last}")
    check_trainable(model)
    model = copy.deepcopy(model)
    encode, end = corpus.codec(model, tokenizer)
    rows = corpus.segments(text, encode, last + 1, documents)
    measure = functools.partial(against_context, model, rows, max(1, batch_tokens // last), device)
    curves: list[dict[str, Any]] = [{"window": model.spec.context_length, "tokens": 0, "seconds": 0.0, **measure()}]
    tokens = corpus.stream(
        text, encode, end, sum(stage["tokens"] for stage in stages) + len(stages), held_out=False, long=last + 1
    )
    begin = 0
    for number, stage in enumerate(stages, 1):
        window, rate = stage["window"], float(stage["rate"])
        batch = max(1, batch_tokens // window)
        recipe = Recipe(stage["tokens"] // (batch * window), rate, rate, seed=number, autocast=autocast)
        part = tokens[begin : begin + stage["tokens"] + 1]
        begin += stage["tokens"]
        folder = work_folder(work, model, device, VERSION, part, recipe, window, batch)
        batches = corpus.windows(part, window, batch, number)
        log = train(NextToken(model), batches, recipe, folder, device=device, label=f"{model.spec.label} at {window}")
        seconds = sum(entry["seconds"] for entry in log)
        curves.append({"window": window, "tokens": stage["tokens"], "seconds": seconds, **measure()})
    if out:
        model.spec = dataclasses.replace(model.spec, context_length=last)
        model.save(Path(out) / f"{model.spec.name}-{last}")
    trained = sum(curve["tokens"] for curve in curves)
    return {"documents": len(rows), "tokens": trained, "train_s": sum(c["seconds"] for c in curves)}, {"stages": curves}


FILES = {"text": files.text, "tokenizer": files.tokenizer, "work": files.place, "out": files.place}
