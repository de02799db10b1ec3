"""What takes part in a race of whole models, and how far quantised weights move a model's logits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from evals.language import precision
from rwkv_core.spec import LanguageModel

QUANTISED = math.inf  # no bound: another arithmetic on purpose, whose distance is measured and shown
POSITIONS = 64  # of the text over which it is measured

Step = Callable[[], Tensor]
Reasons = dict[str, str]  # of what is not raced, by its name


@dataclass(frozen=True)
class Peer:
    """One contender.

    call: the task; its result is compared with ours before it is timed.
    what: what it is, in words.
    bound: of its largest error, of the largest entry; None: that of the model's type.
    distance: of quantised weights, as by `distance`.
    """

    call: Step
    what: str
    bound: float | None = None
    distance: Mapping[str, float] = field(default_factory=dict)


class Text(NamedTuple):
    """Random tokens [T], and our logits [T, V] after each."""

    tokens: Tensor
    logits: Tensor


def elsewhere(model: nn.Module) -> str:
    """Why those with weights of their own format are not raced where a model's weights lie; empty where they are."""
    weight = next(model.parameters())
    return "" if (weight.device.type, weight.dtype) == ("cpu", torch.float32) else "raced in float32 on a CPU alone"


def text(model: LanguageModel, device: torch.device, seed: int) -> Text:
    """A text for `distance`."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(model.spec.vocab_size, (POSITIONS,), generator=generator).to(device)
    return Text(tokens, logits(model, tokens))


def logits(model: LanguageModel, tokens: Tensor) -> Tensor:
    """tokens [T] -> the logits [T, V] after each."""
    return model.logits(model.hidden(tokens[None], keep=False)[0])[0]


def distance(ours: Tensor, theirs: Tensor) -> dict[str, float]:
    """How far logits [T, V] are from ours: the largest error, of our largest; KL, the mean divergence of their
    distribution from ours, in nats; the share of positions with the same likeliest token.
    """
    divergence, same = precision.apart(theirs, ours)
    return {
        "largest": float((theirs - ours).abs().max() / ours.abs().max()),
        "kl": float(divergence.mean()),
        "same_first": float(same.double().mean()),
    }
