"""How a model is trained: the schedule, and which parameters decay and learn at which rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. The rate is constant, then falls to `end_rate`: exponentially (paper v2, App. G, whose
    "warm-up" is a constant rate), or along a cosine; before that it rises for `rise` steps, since Adam's first ones are
    noisy. The fields name the folder of a training and lie in its state: with other names none would be resumed.
    """

    steps: int
    learning_rate: float
    end_rate: float
    constant: float = 0.2  # share of the steps before the rate falls
    rise: int = 20  # steps
    betas: tuple[float, float] = (0.9, 0.99)  # paper v2, App. G
    weight_decay: float = 0.0  # as in the paper
    clip: float = 1.0  # norm of all gradients together
    seed: int = 0
    autocast: bool = False  # bfloat16 products, float32 weights
    cosine: bool = False

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.rise:
            return self.learning_rate * (step + 1) / self.rise
        falling = max(0.0, step / self.steps - self.constant) / (1 - self.constant)
        if self.cosine:
            return self.end_rate + (self.learning_rate - self.end_rate) * (1 + math.cos(math.pi * falling)) / 2
        return self.learning_rate * math.exp(falling * math.log(self.end_rate / self.learning_rate))


class Undecayed(nn.Parameter):
    """A table that weight decay leaves alone, as it does vectors: positions, a state's dynamics. rate_at_most: the
    highest rate that it learns at.
    """

    rate_at_most = math.inf


def groups(objective: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """The optimizer's groups of parameters; `share`: of the recipe's rate. Matrices decay; vectors (biases, norms,
    RWKV's decays and shifts), what is `Undecayed` and what a module names in UNDECAYED do not.
    """
    matrices = []
    undecayed: dict[float, list[nn.Parameter]] = {1.0: []}  # by share
    named = {
        id(getattr(m, name)) for m in objective.modules() for name in getattr(m, "UNDECAYED", ()) if hasattr(m, name)
    }
    for p in objective.parameters():
        if isinstance(p, Undecayed):
            undecayed.setdefault(min(1.0, p.rate_at_most / recipe.learning_rate), []).append(p)
        elif p.squeeze().dim() > 1 and id(p) not in named:
            matrices.append(p)
        else:
            undecayed[1.0].append(p)
    decayed: dict[str, Any] = {"params": matrices, "weight_decay": recipe.weight_decay}
    return [decayed, *({"params": ps, "weight_decay": 0.0, "share": share} for share, ps in undecayed.items())]
