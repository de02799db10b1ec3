"""Trainings of several seeds and learning rates: the best rate of each, and two sides beside each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from reports.draw import numbers
from reports.sentences import FEW_SEEDS, Comparison, Words

FEW = f"one side has fewer than {FEW_SEEDS} seeds"
LONE = "A side was trained at one learning rate alone: another may be better."
CHOSE = (
    f"Seeds that were trained at several learning rates chose among them, and are left out where {FEW_SEEDS} others "
    "are there; elsewhere a side that was searched looks a little better than new seeds would."
)
EDGE = "The best learning rate of a side was the lowest or the highest of those tried: another may be better."


def best_rates(frame: pd.DataFrame, run: Sequence[str], metric: str, alike: float = 0.0) -> pd.DataFrame:
    """The rows at the rate with the lowest mean of `metric`, a loss, over the seeds that ended at every rate (over all,
    if none did); of rates that are alike the one with the most seeds. The seeds that chose are left out
    where enough others are there (`CHOSE`).

    frame: with the columns `metric`, `value`, `seed`, `rate` and those of `run`, within which rates are compared.
    alike: losses that differ by less are equally good.
    Adds `edge`: no lower or no higher rate was tried; `lone`: no other one at all.
    """
    best = []
    for _, one in frame.groupby(list(run), sort=False):
        losses = one[one.metric == metric].pivot_table("value", "seed", "rate")
        shared = losses.dropna()
        chose = losses if shared.empty else shared
        means = chose.mean()
        good = means[means <= means.min() + alike].index
        rate = max(good, key=lambda rate: (losses[rate].count(), -means[rate]))
        at_best = one[one.rate == rate]
        new = at_best[~at_best.seed.isin(chose.index)]
        shown = new if new.seed.nunique() >= FEW_SEEDS else at_best
        best.append(shown.assign(edge=rate in (means.index.min(), means.index.max()), lone=len(means) == 1))
    return pd.concat(best)


def beside(
    heading: str,
    words: Words,
    item: str,
    one: pd.DataFrame,
    other: pd.DataFrame,
    show: Callable[[float], str],
    *,
    lower: bool = False,
) -> Comparison:
    """Two sides' values over the seeds; their extremes decide, since three seeds allow no test, and of fewer nothing is
    named.

    one, other: rows of `best_rates`. show: what writes a value. lower: whether less is better.
    """
    first, second = one.value, other.value
    size = " beside ".join(spread(values, show) for values in (first, second))
    apart = bool(first.min() > second.max() or first.max() < second.min())
    few = min(one.seed.nunique(), other.seed.nunique()) < FEW_SEEDS
    caution = LONE if one.lone.any() or other.lone.any() else EDGE if one.edge.any() or other.edge.any() else ""
    lead = first.mean() - second.mean()
    return Comparison(
        heading,
        words,
        item if apart or few else f"{item}: {size}",  # of no difference: both good, or both bad?
        -lead if lower else lead,
        size,
        apart=apart,
        undecided=FEW if few else "",
        caution=caution,
    )


def spread(values: pd.Series[float], show: Callable[[float], str]) -> str:
    """The mean over the seeds, and the least and the largest where they differ."""
    mean, low, high = values.mean(), values.min(), values.max()
    return show(mean) if low == high else numbers.spread(mean, low, high, show)
