"""Views of training: the losses of every run, and each model's best rate over its seeds."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator

import pandas as pd

from reports.draw import numbers
from reports.draw.figure import Panel, Picture, Series
from reports.draw.table import Table
from reports.reading import Reading, Row
from reports.records.record import Record
from reports.results import Results
from reports.sentences import FEW_SEEDS, ONE_TRAINING, Comparison, Words
from reports.views import families, seeds, texts
from reports.views.view import Section, View, parts

WHERE = ["text", "machine", "device", "dtype"]
MEDIAN_STEPS = 25  # so many steps' losses make one point of a curve
LOSS = Words("lower than", "higher than", "no difference shown from")
SEEDS = (
    f"{FEW_SEEDS} seeds a side allow no test: of two models that are alike one pair in ten is named all the same, and "
    f"nothing is corrected for the number of pairs. {seeds.CHOSE}"
)
NOTE = (
    "Losses in nats a token: of the last twentieth of the steps, and on text that was never trained on. Minutes beside "
    "whatever else ran on the machine (--jobs): no measurement of speed."
)


def rows(record: Record) -> Iterator[Row]:
    """Losses (nats a token) of training, held out and by tokens; seconds, passes over the text."""
    params, metrics = record.cell.params, record.metrics
    shared = {"rate": params["learning_rate"], "steps": params["steps"], "window": params["window"]}
    shared |= {"seed": record.cell.seed, **texts.read(record)}
    for metric in ("loss", "held_out_loss", "train_s", "passes"):
        yield {"metric": metric, "value": metrics[metric], "tokens": metrics["tokens"], **shared}
    each = metrics["tokens"] // params["steps"]
    losses = record.samples["loss"]
    for begin in range(0, len(losses), MEDIAN_STEPS):
        some = losses[begin : begin + MEDIAN_STEPS]
        tokens = (begin + len(some) / 2) * each
        yield {"metric": "step_loss", "value": statistics.median(some), "tokens": tokens, **shared}


def views(results: Results) -> Iterator[View]:
    """Each text and machine apart."""
    for number, key, part in parts(results.frame("pretrain"), WHERE):
        text, *where = map(str, key)
        mark = texts.mark(text)
        name = f"pretrain{number}"
        best = seeds.best_rates(part, ["label", "steps"], "held_out_loss")
        title = f"Training, {mark}"
        picture = Picture(name, title, list(_panels(best)), " · ".join([mark, *where]))
        losses = best[best.metric == "held_out_loss"]
        compared = list(_comparisons(losses))
        said = [_ranked(losses), *([SEEDS] if compared else []), *_unsearched(part), *texts.lines(part)]
        yield View(name, title, said, [_table(part, name, mark)], [picture], comparisons=compared)


def _table(part: pd.DataFrame, name: str, mark: str) -> Table:
    lines = []
    several = part.seed.nunique() > 1
    for _, run in part.groupby("cell", sort=False):
        value = run.drop_duplicates("metric").set_index("metric").value
        first = run.iloc[0]
        lines.append(
            {
                "model": first.label,
                "parameters": numbers.count(first.parameters),
                "learning rate": f"{first.rate:g}",
                **({"seed": f"{first.seed:.0f}"} if several else {}),
                "steps": f"{first.steps:.0f}",
                "tokens": numbers.count(first.tokens),
                "passes over the text": f"{value.passes:.1f}" if value.passes > 1 else "≤ 1",
                "training loss": f"{value.loss:.4f}",
                "held-out loss": f"{value.held_out_loss:.4f}",
                "minutes": numbers.minutes(value.train_s),
            }
        )
    return Table(name, f"Training runs, {mark}", pd.DataFrame(lines), NOTE)


def _panels(best: pd.DataFrame) -> Iterator[Panel]:
    """The mean over the seeds; the least and the largest as a band."""
    for steps, group in best[best.metric == "step_loss"].groupby("steps"):
        series = []
        for label, run in group.groupby("label", sort=False):
            of = run.groupby("tokens").value
            band = (list(of.min()), list(of.max())) if run.seed.nunique() > 1 else ()
            series.append(Series(str(label), run.family.iloc[0], list(of.mean().index), list(of.mean()), *band))
        title = f"{steps:.0f} steps, each model's best learning rate"
        y_title = f"nats a token (median of {MEDIAN_STEPS} steps)"
        yield Panel(title, "tokens", y_title, series, log_x=10, log_y=10)


def _ranked(losses: pd.DataFrame) -> str:
    """The held-out losses of the longest trainings."""
    longest = losses[losses.steps == losses.steps.max()]
    of_model = {str(label): run.value for label, run in longest.groupby("label", sort=False)}
    ordered = sorted(of_model.items(), key=lambda pair: pair[1].mean())
    each = ", ".join(f"{label} {seeds.spread(values, _nats)}" for label, values in ordered)
    ranked = (
        f"Held-out loss after {longest.steps.iloc[0]:.0f} steps, the most, the lowest first (nats a token): {each}."
    )
    return f"{ranked} {ONE_TRAINING}" if _most_seeds(losses) == 1 else ranked


def _most_seeds(losses: pd.DataFrame) -> int:
    """Of any model at one number of steps."""
    return int(losses.groupby(["label", "steps"]).seed.nunique().max())


def _comparisons(best: pd.DataFrame) -> Iterator[Comparison]:
    """Each model of ours beside each other one that was trained for as many steps, where there are several seeds."""
    if _most_seeds(best) < FEW_SEEDS:
        return
    for steps, group in best.groupby("steps"):
        of_model = {str(label): run for label, run in group.groupby("label", sort=False)}
        for (mine, first), (theirs, second) in itertools.permutations(of_model.items(), 2):
            if families.compared(first.family.iloc[0], second.family.iloc[0]):
                heading = f"{mine}, held-out loss after {steps:.0f} steps"
                yield seeds.beside(heading, LOSS, theirs, first, second, _nats, lower=True)


def _nats(loss: float) -> str:
    return f"{loss:.3f}"


def _unsearched(part: pd.DataFrame) -> Iterator[str]:
    if part.groupby("label").rate.nunique().max() == 1:
        yield "Each model has one learning rate: none was searched for on this text."


SECTION = Section(
    views,
    {
        "pretrain": Reading(
            rows,
            apart={"text", "learning_rate", "steps"},
            oldest=2,
            seeds_pooled=True,
            compared={"held_out_loss": "score"},
        ),
    },
)
