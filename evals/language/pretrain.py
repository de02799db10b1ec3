"""The pretrain experiment: one language model from fresh weights, on a text, by the one training loop."""

from __future__ import annotations

import copy
import functools
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from accelerate import PartialState
from torch import Tensor, nn

from evals import identity
from evals.experiment import AtLeast, Experiment
from evals.language import corpus
from evals.train.loop import train
from evals.train.recipe import Recipe
from evals.train.work import folder_of_model
from rwkv_core import finite
from rwkv_core.errors import BadInput, Unsupported
from rwkv_core.spec import Trainable

VERSION = 2

HELD_OUT_TOKENS = (1 << 16) + 1


class NextToken(nn.Module):
    """The mean cross-entropy of a language model's next tokens, nats; [B, T + 1] tokens."""

    def __init__(self, model: Trainable) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        hidden, _ = self.model.hidden(tokens[:, :-1], keep=False)
        return F.cross_entropy(self.model.logits(hidden).flatten(0, 1).float(), tokens[:, 1:].flatten())


def run(
    model: Trainable,
    *,
    device: str,
    text: str,
    tokenizer: str,
    steps: Annotated[int, AtLeast(1)],
    learning_rate: float,
    final_learning_rate: float,
    window: Annotated[int, AtLeast(1)] = 256,
    batch: Annotated[int, AtLeast(1)] = 16,
    autocast: bool = False,
    processes: Annotated[int, AtLeast(1)] = 1,
    work: str = "",
    out: str = "",
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train a model from weights of its seed, and measure its loss on held-out text.

    text: pocket, or a folder of text files, of which a part is held out.
    tokenizer: pocket (that world's), a tokenizer.json or a World vocabulary.
    steps: of training.
    learning_rate: the highest of the schedule; see evals/train/recipe.py.
    final_learning_rate: the last of the schedule.
    window: tokens of a sequence.
    batch: sequences a step.
    autocast: train in bfloat16 where that is safe.
    processes: that share each batch, one a GPU.
    work: a folder for what a later run goes on from; empty for results/work.
    out: a folder that takes the trained model, `<out>/<model's name>`, in bfloat16; empty for none.

    Returns the loss on held-out text (files that were not read, or another sample of the pocket world's text), the
    speed, and how often the text was passed over; samples: the loss of each step. Raises BadInput for weights that are
    not fresh or not in float32.
    """
    check_fresh(model)
    if batch % processes:
        raise BadInput(f"a batch of {batch} windows cannot be shared evenly by {processes} processes")
    model = copy.deepcopy(model)  # other cells begin with the same fresh weights
    encode, end = corpus.codec(model, tokenizer)
    tokens = corpus.stream(text, encode, end, steps * batch * window + 1, held_out=False, long=0)
    held_out = corpus.stream(text, encode, end, HELD_OUT_TOKENS, held_out=True, long=0)
    unseen = corpus.windows(held_out, window, batch, 0)
    seed = model.spec.seed or 0
    recipe = Recipe(steps, learning_rate, final_learning_rate, seed=seed, autocast=autocast)
    objective = NextToken(model)
    batches = corpus.windows(tokens, window, batch, seed)
    folder = folder_of_model(work, model, device, VERSION, tokens, recipe, window, batch, processes)
    log = train(objective, batches, recipe, folder, device=device, label=f"train {model.spec.label}")
    losses, seconds = [entry["loss"] for entry in log], [entry["seconds"] for entry in log]
    if out and PartialState().is_main_process:
        model.save(Path(out) / model.spec.name)
    metrics = {
        "parameters": model.parameter_count,
        "tokens": steps * batch * window,
        "passes": steps * batch * window / (len(tokens) - 1),
        "loss": statistics.fmean(losses[-max(1, steps // 20) :]),
        "held_out_loss": held_out_loss(objective, unseen, (len(held_out) - 1) // window // batch),
        "tokens_per_s": batch * window / statistics.median(seconds),
        "train_s": sum(seconds),
    }
    return metrics, {"loss": [round(loss, 6) for loss in losses]}


def check_fresh(model: Trainable) -> None:
    """Raises BadInput for weights that are not as training begins, or not trainable."""
    check_trainable(model)
    if not model.spec.fresh:
        raise BadInput(f"{model.spec.name}: training starts from fresh weights; write `weights: fresh:SEED`")


def check_trainable(model: Trainable) -> None:
    """Raises BadInput for half-precision weights, in which small steps are lost, Unsupported for a runtime that cannot
    train.
    """
    if not isinstance(getattr(model, "module", None), nn.Module):
        raise Unsupported(f"{model.spec.name}: `runtime: {model.spec.runtime}` cannot train; leave it out")
    if any(p.dtype != torch.float32 for p in model.module.parameters()):
        raise BadInput(f"{model.spec.name}: training wants `dtype: float32`; `autocast: true` computes in bfloat16")


@torch.inference_mode()
def held_out_loss(objective: nn.Module, batches: Callable[[int], Sequence[Tensor]], steps: int) -> float:
    """The mean loss over the first `steps` batches."""
    device = next(objective.parameters()).device
    losses = []
    for step in range(steps):
        batch = [t.to(device) for t in batches(step)]
        losses.append(float(objective(*batch)))
        if not math.isfinite(losses[-1]):
            raise finite.fault("the trained model", objective, functools.partial(objective, *batch), finite.TRAINED)
    return statistics.fmean(losses)


EXPERIMENT = Experiment(
    run,
    version=VERSION,
    reads={"text": identity.text, "tokenizer": identity.tokenizer, "work": identity.place, "out": identity.place},
    processes="processes",
)
