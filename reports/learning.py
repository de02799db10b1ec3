"""Views of training and of loss against context length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from reports import paper
from reports.figures import Panel, Picture, Series
from reports.rows import MEDIAN_STEPS, Row
from reports.tables import Table
from reports.views import View

WHERE = ["text", "machine", "device", "dtype"]
POCKET_WORLD = "pocket world"
POCKET = (
    "The pocket world's documents grow harder as they go on: more and more has been put away that a later sentence may "
    "ask for. So a curve rises even where a model forgets nothing; compare models at a length. Extension trains on "
    "such documents alone: a part of what it gains is the kind of text, not the length."
)
CONTEXT = (
    "The mean loss of tokens that have between 3/4 n and n tokens before them, over documents that were not trained "
    "on; the band is one standard error over the documents. Every model reads a document from its beginning with its "
    "state or cache carried along. Beyond the window it was trained at, a model does what its architecture does there: "
    "OPT's learned positions are untrained, Pythia's rotary angles unseen, BLOOM's biases and RWKV-4's state go on."
)


def views(rows: Sequence[Row]) -> Iterator[View]:
    """Training runs, and loss against context, each text and machine apart."""
    frame = pd.DataFrame(rows)
    if "text" not in frame:
        return
    for kind, make in (("pretrain", _training), ("context", _context), ("extend", _extension)):
        chosen = frame[(frame.experiment == kind) & (frame.metric != "status")]
        for i, (key, part) in enumerate(chosen.groupby(WHERE, sort=False)):
            text, *where = map(str, key)
            source = text.partition(":")[0]
            mark = POCKET_WORLD if source == "pocket" else f"{source} text"
            yield make(part, f"{kind}{f'-{i + 1}' if i else ''}", mark, " · ".join([mark, *where]))


def _training(part: pd.DataFrame, name: str, mark: str, footer: str) -> View:
    lines = []
    for _, own in part.groupby("cell", sort=False):
        value = own.drop_duplicates("metric").set_index("metric").value
        first = own.iloc[0]
        lines.append(
            {
                "model": first.label,
                "parameters": f"{first.parameters:,.0f}",
                "learning rate": f"{first.rate:g}",
                "steps": f"{first.steps:.0f}",
                "tokens": f"{first.tokens:,.0f}",
                "training loss": f"{value.loss:.4f}",
                "held-out loss": f"{value.held_out_loss:.4f}",
                "tokens/s": f"{value.tokens_per_s:,.0f}",
                "minutes": f"{value.train_s / 60:.1f}",
            }
        )
    note = "Losses in nats a token: of the last twentieth of the steps, and on text that was never trained on."
    table = Table(name, f"Training runs, {mark}", pd.DataFrame(lines), note)
    longest = part[(part.metric == "held_out_loss") & (part.steps == part.steps.max())]
    best = longest.loc[longest.groupby("label", sort=False).value.idxmin()].cell
    curves = [part[(part.cell == cell) & (part.metric == "step_loss")] for cell in best]
    series = [Series(own.label.iloc[0], own.family.iloc[0], list(own.tokens), list(own.value)) for own in curves]
    y_title = f"nats a token (median of {MEDIAN_STEPS} steps)"
    panel = Panel("Training loss, the best of each model's longest runs", "tokens", y_title, series)
    return View(name, f"Training, {mark}", [], [table], [Picture(name, f"Training, {mark}", [panel], footer)])


def _context(part: pd.DataFrame, name: str, mark: str, footer: str) -> View:
    panels = [_panel(own, f"Trained with windows of {window:.0f}") for window, own in part.groupby("window")]
    picture = Picture(name, f"Loss against context, {mark}", [*panels, *_published()], footer)
    return View(name, f"Loss against context length, {mark}", _text(mark), [_losses(part, name, mark)], [picture])


def _extension(part: pd.DataFrame, name: str, mark: str, footer: str) -> View:
    panels = [
        _panel(own, f"{'Before:' if stage == 0 else 'After'} windows of {own.window.iloc[0]:.0f}")
        for stage, own in part.groupby("stage")
    ]
    text = [*_text(mark), "Each stage goes on from the one before it, with windows of the length in its title."]
    picture = Picture(name, f"Progressive context extension, {mark}", [*panels, *_published()], footer)
    tables = [_losses(own, f"{name}-{own.window.iloc[0]:.0f}", mark) for _, own in part.groupby("stage")]
    return View(name, f"Context extension, {mark}", text, tables, [picture])


def _text(mark: str) -> list[str]:
    return [CONTEXT, POCKET] if mark == POCKET_WORLD else [CONTEXT]


def _panel(part: pd.DataFrame, title: str) -> Panel:
    series = [
        Series(own.label.iloc[0], own.family.iloc[0], list(own.tokens), list(own.value), list(own.low), list(own.high))
        for _, own in part.groupby("cell", sort=False)
    ]
    return Panel(title, "tokens of context", "nats a token", series, log_x=2)


def _losses(part: pd.DataFrame, name: str, mark: str) -> Table:
    lines = []
    for _, own in part.groupby("cell", sort=False):
        cells = {f"{r.tokens:.0f}": f"{r.value:.3f} ± {r.stderr:.3f}" for r in own.itertuples()}
        lines.append({"model": own.label.iloc[0], "trained at": f"{own.window.iloc[0]:.0f}", **cells})
    frame = pd.DataFrame(lines).fillna("-")
    return Table(name, f"Loss given so many tokens, {mark}", frame)


def _published() -> list[Panel]:
    """RWKV-4 7B on the Pile's test set, read from the vector graphic of v1 Fig. 5."""
    rows = paper.table("context_extension")
    rows = rows[rows.item == "pile_test_loss"]
    rows = rows.astype({"context_length": int, "value": float})
    series = [
        Series(f"{model}, published", "rwkv4", list(own.context_length), list(own.value), hollow=True)
        for model, own in rows.groupby("model", sort=False)
    ]
    title = "Published: on the Pile's test set (v1 Fig. 5)"
    return [Panel(title, "tokens of context", "nats a token", series, log_x=2)]
