"""Views of the needles: how often a fact is found, by the text's length and the fact's depth, bytes beside."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from reports.draw import numbers
from reports.draw.figure import HeatMap, Picture
from reports.draw.table import Table
from reports.reading import Kind, Reading, Row
from reports.records.record import Record
from reports.results import Results
from reports.sentences import AT, ONE_TRAINING, Comparison
from reports.statistics import paired
from reports.views.families import compared, ordered
from reports.views.view import Section, View, bounds_note, mark, of_task, parts, task_titles

WHERE = ["weights", "machine", "device", "dtype"]
DEPTHS = 5  # places from the start of a text to its end, to the nearest of which a fact is counted
TITLES = {  # of tasks whose records say none
    "pocket_passkey": "One thing put into one room, nothing else put anywhere (pocket world)",
    "pocket_needle": "One thing put into a room, among many others (pocket world)",
    "niah_single_1": "One number among sentences that repeat (RULER niah_single_1)",
    "niah_multikey_2": "One number among many under other keys (RULER niah_multikey_2)",
    "niah_multikey_3": "The same with identifiers (RULER niah_multikey_3)",
    "fwe": "The three most frequent words (RULER fwe)",
}
SAME_TEXTS = "pocket"  # tasks whose texts are of one tokenizer, and so the same for all models
TEXT = (
    "A fact stands once in a long text, at the depth shown (0 %: at its start, 100 %: just before the question), and "
    "is asked for at the end. A cache keeps every token and grows with the text; a state must have kept the fact "
    "without knowing that it will be asked for, in the bytes shown. RULER's tasks are lm-eval's, with the model's own "
    "tokenizer: of a generated text counts the share of the answers that it holds. The pocket world's question is "
    "scored over all its rooms. Models read on beyond the window they were trained on, as far as their positions go."
)
NOTES = {
    "random": "RANDOM WEIGHTS: nothing can be found; it shows that the way works, and nothing about the models.",
    "trained": "The pocket world's tasks, where they are shown, are of text that these models were not trained on.",
}


def rows(record: Record) -> Iterator[Row]:
    """The share that was right over all texts (depth None) and at each of DEPTHS depths (0 to 1); the state's bytes."""
    metrics = record.metrics
    shared = {"length": record.cell.params["length"], "window": metrics["trained_tokens"]}
    shared |= {"tokens": metrics["tokens"], **of_task(record)}
    params = record.cell.params  # those of other seeds or tokenizers are other texts
    shared["texts"] = params["seed"], params["tokenizer"], metrics["tokens"], metrics["named"]
    shares: dict[float | None, list[float]] = {None: [item["share"] for item in record.samples["items"]]}
    for item in record.samples["items"]:
        if item["depth"] is not None:
            shares.setdefault(round(item["depth"] * (DEPTHS - 1)) / (DEPTHS - 1), []).append(item["share"])
    floors = {"chance": metrics["chance"], "named": metrics["named"]}
    for depth, at_depth in shares.items():
        error = statistics.stdev(at_depth) / math.sqrt(len(at_depth)) if len(at_depth) > 1 else None
        value = {"value": statistics.fmean(at_depth), "stderr": error, "depth": depth, "docs": len(at_depth)}
        yield {"metric": "needle", **value, **floors, **shared}
    yield {"metric": "state_bytes", "value": metrics["state_bytes"], **shared}


def views(results: Results) -> Iterator[View]:
    """One section for each kind of weights and machine; nothing where nothing was hidden."""
    frame = results.frame("needles")
    if frame.empty:
        return
    frame = ordered(frame, "task", "family", "window", "length")
    for number, key, part in parts(frame, WHERE):
        weights, *where = map(str, key)
        name = f"needles{number}"
        text = [TEXT, *([NOTES[weights]] if weights in NOTES else []), f"Measured on {', '.join(where)}."]
        titles = task_titles(part[part.depth.notna()], TITLES)
        footer = f"{', '.join(where)} · {mark(weights)}"
        pictures = [
            _picture(part[part.task == task], title, f"{name}-{task}", footer) for task, title in titles.items()
        ]
        tested = [] if weights == "random" else list(_comparisons(part, titles, results))
        title = f"A fact in a long text, {mark(weights)}"
        yield View(name, title, text, [_table(part, name)], pictures, comparisons=tested)


def _comparisons(part: pd.DataFrame, titles: Mapping[str, str], results: Results) -> Iterator[Comparison]:
    """Each model of ours beside each that it is compared with, trained on windows of one length, text by text."""
    whole = part[(part.metric == "needle") & part.depth.isna() & part.task.str.startswith(SAME_TEXTS)]
    for (task, _), alike in whole.groupby(["task", "window"], sort=False):
        for one, other in itertools.permutations(alike.to_dict("records"), 2):
            if not compared(one["family"], other["family"]) or one["length"] != other["length"]:
                continue
            texts, others = (_numbered(results.items(row["cell"], row["machine"])) for row in (one, other))
            if one["texts"] != other["texts"] or len(texts) != len(others):
                continue
            baseline = max(one["chance"], one["named"] if one["named"] < 1 else 0.0)
            difference = paired.compare(texts, others, "share")
            yield Comparison(
                f"{one['label']} against {other['label']}, trained on windows of {one['window']:.0f}: "
                f"{titles[str(task)]}",
                AT,
                f"{one['length']:.0f} tokens ({numbers.percent(one['value'])} beside "
                f"{numbers.percent(other['value'])}, a guess {numbers.percent(baseline)})",
                difference.difference,
                f"{numbers.points(difference.difference, difference.low, difference.high)} points",
                difference.p,
                undecided=difference.undecided,
                caution=ONE_TRAINING,
            )


def _numbered(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"doc": i, **item} for i, item in enumerate(items)]


def _picture(frame: pd.DataFrame, title: str, name: str, footer: str) -> Picture:
    panels = []
    for label, part in frame.groupby("label", sort=False):
        grid = part[part.depth.notna()].pivot_table("value", "depth", "length")
        held = part[part.metric == "state_bytes"].groupby("length").value.max()
        trained = f"trained on windows of {part.window.iloc[0]:.0f}"
        panels.append(
            HeatMap(
                f"{label}, {trained}",
                "tokens, and the bytes of the state or cache",
                "depth",
                [f"{length:.0f}\n{numbers.mebibytes(held[length])}" for length in grid.columns],
                [f"{numbers.percent(depth, digits=0)} %" for depth in grid.index],
                [[None if pd.isna(v) else 100 * v for v in row] for row in grid.to_numpy()],
            )
        )
    return Picture(name, title, panels, footer, columns=min(2, len(panels)))


def _table(frame: pd.DataFrame, name: str) -> Table:
    lines = []
    for _, part in frame.groupby("cell", sort=False):
        (whole,) = part[(part.metric == "needle") & part.depth.isna()].to_dict("records")
        (held,) = part[part.metric == "state_bytes"].value
        lines.append(
            {
                "task": whole["task"],
                "model": whole["label"],
                "trained on": f"{whole['window']:.0f}",
                "tokens": f"{whole['length']:.0f} ({whole['tokens']:.0f})",
                "found": numbers.score(whole["value"], whole["stderr"], whole["docs"]),
                "texts": f"{whole['docs']:.0f}",
                "chance": numbers.percent(whole["chance"]),
                "any named": numbers.percent(whole["named"]),
                "state or cache": numbers.mebibytes(held),
            }
        )
    note = (
        "Percent ± standard error, over all depths. any named: a guess among the answers that the text names. trained "
        "on: the tokens of a window in training. tokens: as asked for (of the longest prompt, after which the state or "
        "cache is counted)."
    )
    table = pd.DataFrame(lines)
    return Table(name, "Facts found in long texts", table, note + bounds_note(table))


COMPARED: dict[str, Kind] = {"needle": "score", "state_bytes": "bytes"}
READING = Reading(rows, apart={"task", "length"}, line_of_cell=True, items="texts", compared=COMPARED)
SECTION = Section(views, {"needles": READING})
