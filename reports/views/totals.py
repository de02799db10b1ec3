"""The time of reading a prompt and generating after it, of two models: a map of prompts and generated lengths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from reports.draw import numbers
from reports.draw.figure import HeatMap, Picture
from reports.views.crossings import Pair

GENERATED = (16, 64, 256, 1024, 4096)
TITLE = "Total time of a prompt and the tokens generated after it, % of the second model's (blue: the first is faster)"


def picture(pairs: Sequence[Pair], name: str, footer: str) -> Picture | None:
    """A map a pair; None where no pair has prompts after which anything can be reckoned."""
    panels = [panel for pair in pairs if (panel := _map(pair))]
    return Picture(name, TITLE, panels, f"{footer}; between two stops taken as straight") if panels else None


def _map(pair: Pair) -> HeatMap | None:
    one, other = Curves(pair.one), Curves(pair.other)
    contexts = sorted({*one.step.index} & {*other.step.index})
    prompts = [int(prompt) for prompt in contexts if prompt + GENERATED[0] <= contexts[-1]]
    if not prompts:
        return None
    lengths = [made for made in reversed(GENERATED) if prompts[0] + made <= contexts[-1]]
    percent = [
        [
            100 * one.total(prompt, made) / other.total(prompt, made) if prompt + made <= contexts[-1] else None
            for prompt in prompts
        ]
        for made in lengths
    ]
    title = f"{pair.one.label.iloc[0]} / {pair.other.label.iloc[0]}"
    names = [numbers.tick(prompt) for prompt in prompts]
    made_names = [str(made) for made in lengths]
    return HeatMap(title, "tokens of the prompt", "tokens generated", names, made_names, percent, ratios=True)


class Curves:
    """One model's medians by tokens of context: seconds to the first token, and a step."""

    def __init__(self, rows: pd.DataFrame) -> None:
        self.first, self.step = (
            rows[rows.metric == metric].set_index("tokens").value.sort_index() for metric in ("first_token_s", "step_s")
        )

    def total(self, prompt: int, made: int) -> float:
        """Seconds until `made` tokens are there after a prompt: of the first, and of each step at its context."""
        steps = np.interp(np.arange(prompt, prompt + made - 1), self.step.index, self.step)
        return float(np.interp(prompt, self.first.index, self.first) + steps.sum())
