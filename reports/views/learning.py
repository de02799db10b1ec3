"""Views of loss against context length."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from reports.draw import looks, numbers
from reports.draw.figure import Panel, Picture, Series
from reports.draw.table import Table
from reports.published import paper
from reports.reading import Reading, Row
from reports.records.record import Record
from reports.results import Results
from reports.views import by_document, families, texts
from reports.views.view import Section, View, parts

WHERE = ["text", "machine", "device", "dtype", "schedule"]
POCKET = (
    "The two black lines are computed from how the pocket world's documents were made, for readers who know that: one "
    "looks every earlier sentence up, the other none. A model below the upper line must have looked something up; of "
    "one above it this is not known. Extension trains on such documents alone: a part of "
    "what it gains is the kind of text, not the length; the schedule pocket-short, the same tokens in short windows, "
    "shows that part."
)
LEVELS = {"perfect look-up": "floor", "no look-up": "no look-up"}
CONTEXT = (
    "The mean loss of tokens that have between 3/4 n and n tokens before them, over documents that were not trained "
    "on; the band is one standard error over the documents. Every model reads a document from its beginning with its "
    "state or cache carried along. Pieces of one long text count as documents of their own, so that errors on a folder "
    "of books are too small. Beyond the window it was trained at, a model does what its architecture does there: "
    "OPT's learned positions are untrained, Pythia's rotary angles unseen, BLOOM's biases and {states} go on."
)


def context_rows(record: Record) -> Iterator[Row]:
    """Losses (nats a token) by tokens of context, those of each document as samples."""
    shared = {"window": record.metrics["trained_tokens"], "stage": 0}
    for point in [*_curve_rows(record.samples), *_level_rows(record.samples["levels"])]:
        yield {**point, **shared, "documents": record.metrics["documents_fingerprint"]}


def extend_rows(record: Record) -> Iterator[Row]:
    """The same after each stage of an extension."""
    for number, stage in enumerate(record.samples["stages"]):
        shared = {"window": stage["window"], "stage": number, "trained_tokens": stage["tokens"]}
        shared |= {"documents": record.metrics["documents_fingerprint"], **texts.read(record)}
        for point in [*_curve_rows(stage), *_level_rows(record.samples["levels"])]:
            yield {**point, **shared}


def _curve_rows(samples: Mapping[str, Any]) -> Iterator[Row]:
    for context, losses in zip(samples["context"], zip(*samples["losses"], strict=True), strict=True):
        loss = statistics.fmean(losses)
        error = statistics.stdev(losses) / math.sqrt(len(losses))
        point = {"metric": "context_loss", "value": loss, "low": loss - error, "high": loss + error, "stderr": error}
        yield {**point, "tokens": context, "samples": losses}


def _level_rows(levels: Mapping[str, Mapping[str, float]]) -> Iterator[Row]:
    for name, losses in levels.items():
        for tokens, loss in losses.items():
            yield {"metric": "context_level", "level": name, "value": loss, "tokens": int(tokens)}


def views(results: Results) -> Iterator[View]:
    """Each text and machine apart."""
    for experiment, make in (("context", _context), ("extend", _extension)):
        for number, key, part in parts(results.frame(experiment), WHERE):
            text, *where, _ = map(str, key)
            mark = texts.mark(text)
            yield make(part, f"{experiment}{number}", mark, " · ".join([mark, *where]))


def _context(part: pd.DataFrame, name: str, mark: str, footer: str) -> View:
    levels = _levels(part)
    groups = [(f"{window:.0f}", losses) for window, losses in part[part.metric == "context_loss"].groupby("window")]
    panels = [_panel(losses, f"Trained with windows of {window}", levels) for window, losses in groups]
    picture = Picture(name, f"Loss against context, {mark}", [*panels, *_published()], footer)
    tables = [
        _losses(part, name, mark),
        *itertools.chain(*(by_document.tables(losses, f"{name}-{w}", mark) for w, losses in groups)),
    ]
    compared = [one for w, losses in groups for one in by_document.comparisons(losses, f"trained with windows of {w}")]
    title = f"Loss against context length, {mark}"
    text = [*_below(part), *_text(part, mark)]
    return View(name, title, text, tables, [picture], comparisons=compared)


def _below(part: pd.DataFrame) -> Iterator[str]:
    """At which lengths which models are clearly below the loss of a reader who looks nothing up."""
    if "level" not in part:  # of text that nobody knows the making of
        return
    levels = part[part.level == "no look-up"].groupby("tokens").value.max()
    losses = part[(part.metric == "context_loss") & part.tokens.isin(levels.index)]
    if losses.empty:
        return
    below = losses[losses.value + 2 * losses.stderr < losses.tokens.map(levels)]
    of_model = "; ".join(
        f"{label} at {', '.join(f'{tokens:.0f}' for tokens in sorted(rows.tokens))}"
        for label, rows in below.groupby("label", sort=False)
    )
    nowhere = sorted(set(levels.index) - set(below.tokens))
    yield (
        f"More than two standard errors below a reader who looks nothing up, by tokens of context (of {len(losses)} "
        "losses, each of which chance puts there once in forty times): "
        f"{of_model or 'no model anywhere'}."
        + (f" No model at {', '.join(f'{tokens:.0f}' for tokens in nowhere)}." if below.size and nowhere else "")
    )


def _extension(part: pd.DataFrame, name: str, mark: str, footer: str) -> View:
    levels = _levels(part)
    stages = [
        (
            f"{name}-{stage:.0f}",
            f"{f'after stage {stage:.0f}' if stage else 'before'} (windows of {window:.0f})",
            losses,
        )
        for (stage, window), losses in part[part.metric == "context_loss"].groupby(["stage", "window"])
    ]
    panels = [_panel(losses, when.capitalize(), levels) for _, when, losses in stages]
    text = [*_text(part, mark), "Each stage goes on from the one before it, with windows as named."]
    title = f"Context extension by the schedule {part.schedule.iloc[0]}, {mark}"
    picture = Picture(name, title, [*panels, *_published()], footer)
    tables = [
        table
        for of_stage, when, losses in reversed(stages)  # what became of them, then how they began
        for table in (
            _losses(losses, of_stage, f"{mark}, {when}"),
            *by_document.tables(losses, of_stage, f"{mark}, {when}"),
        )
    ]
    _, when, losses = stages[-1]
    compared = list(by_document.comparisons(losses, when))
    return View(name, title, text, tables, [picture], comparisons=compared)


def _text(part: pd.DataFrame, mark: str) -> list[str]:
    recurrent = [f"{looks.label(family)}'s" for family in dict.fromkeys(part.family) if families.ours(family)]
    states = f"{' and '.join(recurrent)} state" if recurrent else "a state"
    return [CONTEXT.format(states=states), *([POCKET] if mark == texts.POCKET_WORLD else []), *texts.lines(part)]


def _levels(part: pd.DataFrame) -> list[Series]:
    levels = part[part.metric == "context_level"]
    if levels.empty:
        return []
    most = levels[levels.documents == levels.documents.mode()[0]]  # of the documents that most were measured on
    levels = most.drop_duplicates(["level", "tokens"]).sort_values("tokens")
    return [
        Series(
            str(name),
            LEVELS[str(name)],
            list(level.tokens),
            list(level.value),
            markers=False,
            dashed=name == "no look-up",
        )
        for name, level in levels.groupby("level", sort=False)
    ]


def _panel(part: pd.DataFrame, title: str, levels: list[Series]) -> Panel:
    series = [
        Series(
            curve.label.iloc[0],
            curve.family.iloc[0],
            list(curve.tokens),
            list(curve.value),
            list(curve.low),
            list(curve.high),
        )
        for _, curve in part.groupby("cell", sort=False)
    ]
    return Panel(title, "tokens of context", "nats a token", [*series, *levels], log_x=2)


def _losses(part: pd.DataFrame, name: str, mark: str) -> Table:
    lines = []
    for _, curve in part[part.metric == "context_loss"].groupby("cell", sort=False):
        losses = zip(curve.tokens, curve.value, curve.stderr, strict=True)
        cells = {f"{tokens:.0f}": numbers.with_error(loss, error, ".3f") for tokens, loss, error in losses}
        lines.append({"model": curve.label.iloc[0], "trained at": f"{curve.window.iloc[0]:.0f}", **cells})
    for level in _levels(part):
        cells = {f"{tokens:.0f}": f"{loss:.3f}" for tokens, loss in zip(level.x, level.y, strict=True)}
        lines.append({"model": level.label, "trained at": "", **cells})
    frame = pd.DataFrame(lines).fillna("-")
    return Table(name, f"Loss given so many tokens, {mark}", frame)


def _published() -> list[Panel]:
    """RWKV-4 7B on the Pile's test set, read from the vector graphic of v1 Fig. 5."""
    rows = paper.table("context_extension")
    rows = rows[rows.item == "pile_test_loss"]
    rows = rows.astype({"context_length": int, "value": float})
    series = [
        Series(f"{model}, published", "rwkv4", list(curve.context_length), list(curve.value), hollow=True)
        for model, curve in rows.groupby("model", sort=False)
    ]
    title = "Published: on the Pile's test set (v1 Fig. 5)"
    return [Panel(title, "tokens of context", "nats a token", series, log_x=2)]


SECTION = Section(
    views,
    {
        "context": Reading(context_rows, apart={"text"}, oldest=2, compared={"context_loss": "score"}),
        "extend": Reading(extend_rows, apart={"text", "schedule"}, oldest=2, compared={"context_loss": "score"}),
    },
)
