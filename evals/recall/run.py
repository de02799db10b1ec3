"""The recall experiment: one small model from fresh weights, trained on one kind of sequences of one size."""

from __future__ import annotations

import copy
import functools
import statistics
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evals import identity
from evals.experiment import AtLeast, Experiment, OneOf
from evals.language.pretrain import check_fresh
from evals.recall.sequences import MARKS, TASKS, Sequences
from evals.train.loop import train
from evals.train.recipe import Recipe
from evals.train.work import folder_of_model
from rwkv_core import finite
from rwkv_core.errors import BadInput
from rwkv_core.rwkv.mixing import shift
from rwkv_core.spec import ModelSpec, Trainable

VERSION = 1

TEST_SEED = 2**32 - 1  # no step has it
TEST_BATCH = 256


class Answer(nn.Module):
    """The mean cross-entropy over the asked-for tokens, nats; tokens, targets [B, T]."""

    def __init__(self, model: Trainable) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        hidden, _ = self.model.hidden(tokens, keep=False)
        queried = targets >= 0
        return F.cross_entropy(self.model.logits(hidden[queried]).float(), targets[queried])


class TokenShift(nn.Module):
    """x [B, T, C] mixed with the vector before it by a learned share a channel (paper eqs. 11-13, where key, value and
    receptance have a share each).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.lerp(shift(x, torch.zeros_like(x[:, 0])), x, self.share)


def run(
    model: Trainable,
    *,
    device: str,
    task: Annotated[str, OneOf(lambda: TASKS)],
    size: Annotated[int, AtLeast(1)],
    learning_rate: float,
    length: Annotated[int, AtLeast(0)] = 0,
    alphabet: Annotated[int, AtLeast(0)] = 0,
    token_shift: bool = False,
    steps: Annotated[int, AtLeast(1)] = 1000,
    batch: Annotated[int, AtLeast(1)] = 128,
    test: Annotated[int, AtLeast(1)] = 1024,
    shuffled: bool = False,
    work: str = "",
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train a small model on new sequences of a recall task at every step, and score others.

    task: see evals/recall/sequences.py.
    size: how much is to be recalled: pairs, steps, words; see there.
    learning_rate: the highest of the schedule.
    length: of mqar's sequences; 0 for four tokens a pair.
    alphabet: how many keys and how many values there are to pair; 0 for half the vocabulary each.
    token_shift: before every sublayer of a Pythia-shaped model, as RWKV has it.
    steps: of training.
    batch: sequences a step.
    test: sequences that are scored.
    shuffled: train on other sequences' answers, as a control that must score chance.
    work: a folder for what a later run goes on from; empty for results/work.

    Returns the loss at the end (over the last twentieth of the steps, whose sequences were new), the accuracy over all
    asked-for tokens of others, the floors, and the state's bytes; samples: the loss of each step, and of each test
    sequence the share that was `right`. Raises BadInput where the vocabulary or the length is too small.
    """
    check_fresh(model)
    vocabulary = model.spec.vocab_size
    length = length or 4 * size
    check(model.spec, task, size, length, alphabet)
    seed = model.spec.seed or 0
    model = copy.deepcopy(model)
    widen_embedding(model)
    shifted = 0
    if token_shift:
        add_token_shift(model)
        shifted = 2 * model.spec.layers * model.spec.width * 4  # bytes: a vector before each sublayer
    make = functools.partial(TASKS[task].make, size=size, length=length, vocabulary=vocabulary, alphabet=alphabet)
    # constant for long: what is learned here comes suddenly, after a plateau that a falling rate would not leave
    recipe = Recipe(steps, learning_rate, learning_rate / 10, constant=0.8, seed=seed)
    settings = (device, VERSION, task, size, length, alphabet, token_shift, batch, shuffled, recipe)
    folder = folder_of_model(work, model, *settings)
    label = f"{task} {size} {model.spec.label}{' + shift' if token_shift else ''}"
    log = train(Answer(model), _batches(make, seed, batch, shuffled), recipe, folder, device=device, label=label)
    unseen = make(np.random.default_rng([seed, TEST_SEED]), test)
    right = answered(model, unseen, device)
    tokens = unseen.tokens.shape[1]
    metrics = {
        "loss": statistics.fmean(entry["loss"] for entry in log[-max(1, steps // 20) :]),
        "accuracy": float(right.sum() / (unseen.targets >= 0).sum()),
        "chance": unseen.chance,
        "majority": unseen.majority,
        "rule": unseen.rule,
        "title": TASKS[task].title,
        "docs": test,
        "tokens": tokens,
        "parameters": model.parameter_count,
        "state_bytes": model.spec.state_bytes(tokens) + shifted,
        "train_s": sum(entry["seconds"] for entry in log),
    }
    shares = right.sum(1) / (unseen.targets >= 0).sum(1)
    return metrics, {"loss": [round(entry["loss"], 6) for entry in log], "right": shares.round(5).tolist()}


def widen_embedding(model: Trainable) -> None:
    """Give fresh embeddings the standard deviation `embedding_range` of the architecture, if it has one, in place."""
    architecture = model.spec.architecture
    if "embedding_range" in architecture:
        with torch.no_grad():
            embedding = model.causal.get_input_embeddings()  # type: ignore[attr-defined]
            embedding.weight.mul_(architecture["embedding_range"] / architecture["initializer_range"])


def add_token_shift(model: Trainable) -> None:
    """Mix each token with the one before it at the input of every sublayer of a GPT-NeoX model, in place."""
    if model.spec.architecture["model_type"] != "gpt_neox":
        raise BadInput(f"{model.spec.name}: token_shift is for models of Pythia's architecture; RWKV has its own")
    for layer in model.causal.gpt_neox.layers:  # type: ignore[attr-defined]
        for name in ("input_layernorm", "post_attention_layernorm"):
            setattr(layer, name, nn.Sequential(getattr(layer, name), TokenShift(model.spec.width)))


@torch.inference_mode()
def answered(model: Trainable, sequences: Sequences, device: str) -> np.ndarray:
    """Which asked-for tokens the model finds likeliest, [N, T]."""
    answers = []
    for start in range(0, len(sequences.tokens), TEST_BATCH):
        tokens = torch.from_numpy(sequences.tokens[start : start + TEST_BATCH]).to(device)
        hidden, _ = model.hidden(tokens, keep=False)
        logits = model.logits(hidden)
        if not bool(finite.rows(logits).all()):
            finite.refuse(model, tokens)
        answers.append(logits.argmax(-1).cpu().numpy())
    return (np.concatenate(answers) == sequences.targets) & (sequences.targets >= 0)


def check(spec: ModelSpec, task: str, size: int, length: int, alphabet: int) -> None:
    """Raises BadInput where the vocabulary or the length is too small."""
    needed = MARKS + (TASKS[task].tokens or 2 * max(size, alphabet))
    if spec.vocab_size < needed:
        raise BadInput(f"{task} of size {size} needs a vocabulary of {needed}, and {spec.name} has {spec.vocab_size}")
    if 0 < alphabet < size:
        raise BadInput(f"{task}: {size} pairs take as many keys; alphabet is {alphabet}")
    if task == "mqar" and length < 4 * size:
        raise BadInput(f"mqar: {size} pairs and their queries take {4 * size} tokens; length is {length}")


def _batches(
    make: Callable[..., Sequences], seed: int, batch: int, shuffled: bool
) -> Callable[[int], tuple[Tensor, Tensor]]:
    """step -> tokens and targets [batch, T], new ones at every step, the same for the same step."""

    def at(step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([seed, step])
        sequences = make(rng, batch)
        targets = sequences.targets
        if shuffled:
            targets = targets.copy()
            targets[targets >= 0] = rng.permutation(targets[targets >= 0])
        return torch.from_numpy(sequences.tokens), torch.from_numpy(targets)

    return at


EXPERIMENT = Experiment(run, version=VERSION, reads={"work": identity.place})
