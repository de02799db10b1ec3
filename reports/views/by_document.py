"""Losses of two models over the same documents: tables of the differences, and what becomes sentences."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.stats import t as student

from reports.draw import looks, numbers
from reports.draw.table import Table
from reports.sentences import AT, ONE_TRAINING, Comparison
from reports.views import families
from reports.views.view import parts

PIECES = "pieces of one text were counted as documents of their own"
PAIRED = (
    "{ours}'s loss minus the other's over the same documents, ± one standard error of the differences; below zero "
    "where {ours} is better."
)


def tables(part: pd.DataFrame, name: str, mark: str) -> Iterator[Table]:
    """A table for each family of ours, beside those that it is compared with."""
    for number, (family,), ours in parts(part[part.family.map(families.ours)], ["family"]):
        heading = looks.label(family)
        theirs = part[[families.compared(family, against) for against in part.family]]
        cells = (frame.groupby("cell", sort=False) for frame in (ours, theirs))
        lines = [_line(one, against, heading) for (_, one), (_, against) in itertools.product(*cells)]
        if any(lines):
            frame = pd.DataFrame([line for line in lines if line]).fillna("-")  # some lack lengths that others have
            title = f"{heading} and the others, document by document, {mark}"
            yield Table(f"{name}-paired{number}", title, frame, PAIRED.format(ours=heading))


def _line(ours: pd.DataFrame, theirs: pd.DataFrame, heading: str) -> dict[str, str]:
    """A line of two cells; empty where they share no documents."""
    differences = dict(_of_documents(ours, theirs))
    line = {heading: ours.label.iloc[0], "minus": theirs.label.iloc[0]} if differences else {}
    return line | {
        f"{tokens:.0f}": numbers.with_error(mean, error, "+.3f") for tokens, (mean, error, _) in differences.items()
    }


def _of_documents(ours: pd.DataFrame, theirs: pd.DataFrame) -> Iterator[tuple[float, tuple[float, float, int]]]:
    """(tokens, (mean difference of the losses of the documents that both read, its standard error, the documents))."""
    both = ours.merge(theirs, on=["tokens", "documents"])
    for tokens, *losses in zip(both.tokens, both.samples_x, both.samples_y, strict=True):
        differences = np.subtract(*losses)
        error = differences.std(ddof=1) / math.sqrt(len(differences))
        yield tokens, (float(differences.mean()), float(error), len(differences))


def comparisons(part: pd.DataFrame, where: str) -> Iterator[Comparison]:
    """Each cell of ours beside each that it is compared with, at the window that both were trained on and at the most
    tokens that both read: lengths between say the same again.
    """
    cells = [cell for _, cell in part.groupby("cell", sort=False)]
    for ours, theirs in itertools.permutations(cells, 2):
        if not families.compared(ours.family.iloc[0], theirs.family.iloc[0]):
            continue
        differences = dict(_of_documents(ours, theirs))
        for tokens in sorted({ours.window.iloc[0], max(differences, default=0)} & set(differences)):
            mean, error, documents = differences[tokens]
            yield Comparison(
                f"{ours.label.iloc[0]} against {theirs.label.iloc[0]}, loss {where}",
                AT,
                f"{tokens:.0f} tokens",
                -mean,
                f"{'lower' if mean < 0 else 'higher'} by {numbers.with_error(abs(mean), error, '.3f')} nats",
                2 * float(student.sf(abs(mean) / error, documents - 1)) if error else float(mean == 0),
                undecided="" if str(ours.text.iloc[0]).partition(":")[0] == "pocket" else PIECES,
                caution=ONE_TRAINING,
            )
