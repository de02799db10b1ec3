"""The lra experiment: one encoder with one mixer, trained on one task, chosen on its validation part, tested once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import configs
from evals import identity
from evals.experiment import AtLeast, Experiment, OneOf
from evals.lra import data as tasks
from evals.lra.data import GENERATED, Parts, Split
from evals.lra.encoder import Encoder, Problem, Size, matched
from evals.lra.mixers import KINDS, label
from evals.train import work as works
from evals.train.loop import train
from evals.train.recipe import Recipe
from rwkv_core import finite
from rwkv_core.errors import BadInput
from rwkv_core.files import folder as content

VERSION = 2

SCORED = 256  # sequences at a time


class Classified(nn.Module):
    """The mean cross-entropy of an encoder's answers, nats."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, labels: Tensor, *inputs: Tensor) -> Tensor:
        return F.cross_entropy(self.encoder(*inputs).float(), labels)


def run(
    *,
    device: str,
    dtype: str,
    task: Annotated[str, OneOf(lambda: tasks.TASKS)],
    mixer: Annotated[str, OneOf(lambda: KINDS)],
    protocol: str,
    data: str = GENERATED,
    direction: Literal["both", "causal"] = "both",
    length: Annotated[int, AtLeast(16)] = 2000,
    pixels: bool = False,
    layers: Annotated[int, AtLeast(1)] = 4,
    width: Annotated[int, AtLeast(8)] = 256,
    heads: Annotated[int, AtLeast(1)] = 4,
    inner: Annotated[int, AtLeast(8)] = 1024,
    dropout: float = 0.0,
    steps: Annotated[int, AtLeast(1)] = 5000,
    batch: Annotated[int, AtLeast(1)] = 32,
    learning_rate: float = 1e-3,
    warmup: float = 0.1,
    weight_decay: float = 0.05,
    train_count: Annotated[int, AtLeast(0)] = 0,
    validation_count: Annotated[int, AtLeast(0)] = 0,
    test_count: Annotated[int, AtLeast(0)] = 0,
    eval_every: Annotated[int, AtLeast(1)] = 500,
    seed: Annotated[int, AtLeast(0)] = 0,
    work: str = "",
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train Long Range Arena's encoder with one mixer on one task, choose its weights on the validation part and test
    them once.

    task: of Long Range Arena.
    mixer: a line of configs/mixers.yaml.
    protocol: what these settings are called.
    data: generated, or a folder; a matrix's task that it lacks is generated.
    direction: whether a token sees later ones.
    length: tokens, after which sequences are cut; CIFAR-10's images are made smaller.
    pixels: a linear layer reads grey values instead of an embedding.
    layers: of the encoder.
    width: of its blocks.
    heads: of attention.
    inner: hidden width of attention's feed-forward layers; the others get the width that gives them its budget.
    dropout: share that is dropped in training.
    steps: of training.
    batch: sequences a step.
    learning_rate: the highest of the schedule.
    warmup: share of the steps in which the rate rises, before it falls along a cosine to nothing.
    weight_decay: of AdamW.
    train_count: samples to train on; 0 for all there are.
    validation_count: samples to choose on; 0 for all there are.
    test_count: samples to test; 0 for all there are.
    eval_every: steps between validations; the best one's weights are tested.
    seed: of the weights and of the order of the samples.
    work: a folder for what a later run goes on from; empty for results/work.

    Returns accuracies, floors, parameters and the time; samples: losses, validations, and what was right in the test.
    Raises Unsupported where the mixer cannot be had at that budget or in that direction.
    """
    if dtype != "float32":
        raise BadInput("training wants `dtype: float32`")
    arena = tasks.TASKS[task]
    problem = Problem(arena.values, arena.classes, length, arena.pairs, pixels)
    size = Size(layers, width, heads, inner, dropout)
    both = direction == "both"
    budgeted = matched(mixer, size, problem, bidirectional=both)
    counts = (train_count, validation_count, test_count)
    parts = tasks.load(task, data, length, counts, 0, works.place(work))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = Encoder(mixer, budgeted, problem, bidirectional=both)
    recipe = Recipe(
        steps,
        learning_rate,
        0.0,
        constant=0.0,
        rise=max(1, round(warmup * steps)),
        betas=(0.9, 0.98),
        weight_decay=weight_decay,
        seed=seed,
        cosine=True,
    )
    fingerprint = tasks.fingerprint(parts)
    settings = (VERSION, task, mixer, asdict(budgeted), asdict(problem), both, batch, eval_every, asdict(recipe))
    folder = works.folder(work, "lra", [" ".join(map(str, (*settings, fingerprint)))], digits=12)
    log = train(
        Classified(encoder),
        _batches(parts.train, batch, seed),
        recipe,
        folder,
        device=device,
        label=f"{arena.title} {label(mixer)}",
        evaluate=lambda: float(_right(encoder, parts.validation, device).mean()),
        eval_every=eval_every,
    )
    right = _right(encoder, parts.test, device)
    best = max((entry for entry in log if "score" in entry), key=lambda entry: entry["score"])
    metrics = {
        "accuracy": float(right.mean()),
        "validation_accuracy": best["score"],
        "best_step": best["step"] + 1,
        **_baselines(parts, task),
        "docs": len(right),
        "trained": len(parts.train.labels),
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "budget": encoder.budget,
        "inner": budgeted.inner,
        "title": label(mixer),
        "task_title": arena.title,
        "published": configs.read("mixers")[mixer].get("published", ""),
        "train_s": sum(entry["seconds"] for entry in log),
        "data_source": parts.source,
        "data_fingerprint": fingerprint,
    }
    scores = [[entry["step"] + 1, entry["score"]] for entry in log if "score" in entry]
    losses = [round(entry["loss"], 6) for entry in log]
    return metrics, {"loss": losses, "validation": scores, "right": right.astype(int).tolist()}


def _batches(split: Split, batch: int, seed: int) -> Callable[[int], Sequence[Tensor]]:
    """step -> labels and inputs; every sample once in a shuffled order, then again in another."""
    if len(split.labels) < batch:
        raise BadInput(f"{len(split.labels)} training samples are fewer than a batch of {batch}")
    each = len(split.labels) // batch

    def at(step: int) -> Sequence[Tensor]:
        epoch, place = divmod(step, each)
        order = np.random.default_rng([seed, epoch]).permutation(len(split.labels))
        rows = order[place * batch : (place + 1) * batch]
        return [torch.from_numpy(split.labels[rows]), *_inputs(split, rows)]

    return at


def _baselines(parts: Parts, task: str) -> dict[str, float]:
    """What needs no learning, in the test and in the validation part."""
    baselines = {}
    for prefix, part in (("", parts.test), ("validation_", parts.validation)):
        baselines[f"{prefix}majority"] = part.majority
        if task == "listops":
            baselines[f"{prefix}root"] = tasks.root_rule(parts.train, part)
    return baselines


def _inputs(split: Split, rows: Any) -> list[Tensor]:
    inputs = [torch.from_numpy(split.tokens[rows].astype(np.int64)), torch.from_numpy(split.lengths[rows])]
    if split.second is not None and split.second_lengths is not None:
        inputs.append(torch.from_numpy(split.second[rows].astype(np.int64)))
        inputs.append(torch.from_numpy(split.second_lengths[rows]))
    return inputs


@torch.inference_mode()
def _right(encoder: Encoder, split: Split, device: str) -> np.ndarray:
    """Which samples are classified right, [N]."""
    right = []
    for start in range(0, len(split.labels), SCORED):
        rows = slice(start, start + SCORED)
        inputs = [tensor.to(device) for tensor in _inputs(split, rows)]
        logits = encoder(*inputs)
        if not bool(finite.rows(logits).all()):
            raise finite.fault("the encoder", encoder, functools.partial(encoder, *inputs), finite.TRAINED)
        right.append(logits.argmax(-1).cpu().numpy() == split.labels[rows])
    return np.concatenate(right)


def _identify(data: str, params: Mapping[str, Any]) -> tuple[str, str]:
    """Generated, or a task's files by their content; a task that the folder lacks is generated."""
    if data == GENERATED:
        return GENERATED, GENERATED
    if not Path(data).is_dir():
        raise BadInput(f"data {data!r}: no such folder; give one with LRA's files, or write generated")
    folder = tasks.folder(params["task"], data)
    return (f"local:{content(folder)}", str(Path(data).resolve())) if folder else (GENERATED, GENERATED)


EXPERIMENT = Experiment(run, version=VERSION, subject="none", reads={"data": _identify, "work": identity.place})
