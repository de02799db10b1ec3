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
    prompts = sorted({*_curve(pair.one, "step_s").index} & {*_curve(pair.other, "step_s").index})
    percent = [
        [_percent(pair, int(prompt), made) if prompt + made <= prompts[-1] else None for prompt in prompts]
        for made in reversed(GENERATED)
    ]
    if all(value is None for line in percent for value in line):
        return None
    title = f"{pair.one.label.iloc[0]} / {pair.other.label.iloc[0]}"
    names = [numbers.tick(prompt) for prompt in prompts]
    made_names = [str(made) for made in reversed(GENERATED)]
    return HeatMap(title, "tokens of the prompt", "tokens generated", names, made_names, percent, ratios=True)


def _percent(pair: Pair, prompt: int, made: int) -> float:
    one, other = (total(rows, prompt, made) for rows in (pair.one, pair.other))
    return 100 * one / other


def total(rows: pd.DataFrame, prompt: int, made: int) -> float:
    """Seconds until `made` tokens are there after a prompt: of the first, and of each step at its context."""
    first, step = _curve(rows, "first_token_s"), _curve(rows, "step_s")
    contexts = np.arange(prompt, prompt + made - 1)
    steps = np.interp(contexts, step.index, step)
    return float(np.interp(prompt, first.index, first) + steps.sum())


def _curve(rows: pd.DataFrame, metric: str) -> pd.Series[float]:
    """Medians by tokens of context."""
    return rows[rows.metric == metric].set_index("tokens").value.sort_index()
