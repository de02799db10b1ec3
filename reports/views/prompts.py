"""Views of the prompt study: scores in each order, the paper's tables with ours beside, what the order does."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

import configs
from reports.draw import numbers
from reports.draw.figure import Panel, Picture, Series
from reports.draw.table import Table
from reports.published import paper
from reports.reading import Kind, Reading, Row
from reports.records.record import Record
from reports.results import Results
from reports.sentences import LEVEL, ON, ONE_TRAINING, Comparison
from reports.statistics import orders
from reports.statistics.paired import TURNED
from reports.views.families import ordered
from reports.views.view import Section, View, bounds_note, mark, parts

WHERE = ["weights", "machine", "device", "dtype"]
WAYS = {
    "score": "the label whose words are likeliest after the prompt (their probability, whatever their length)",
    "generate": "a label found in a greedily generated text",
}
HOW = {"score": "The labels' words scored", "generate": "A text generated, a label found in it"}
TEXT = (
    "Each item is asked with the question after the text, and before it (paper v2, App. L). Where the question comes "
    "last, a model with a state has read the text without knowing what will be asked; a Transformer can look back in "
    "either order. The paper prints a prompt for RTE and MathQA alone; the others are this project's. A generated text "
    "that names no label or several counts as wrong, and is counted."
)
NOTES = {
    "random": "RANDOM WEIGHTS: every number of theirs is a guess; it shows that the way works, and nothing about the "
    "models.",
    "pocket-trained": "These models were trained on the pocket world's text alone and have never read such as is asked "
    "here: they guess, and what the order does to them is what it does to a guess.",
}
UNREADABLE = "most answers of one order name no label"
EFFECT = (
    "The second order minus the first in percentage points, with its 95 % interval over resampled questions, over the "
    "items that the window held whole in both orders; accuracy: the difference in it; items that one order alone gets "
    "right; p: McNemar's exact test of these, and so of the accuracy. Not corrected for the number of comparisons. "
    "Macro-F1 also rises where a model that guesses stops giving every item the same label, so that a difference in F1 "
    "without one in accuracy may be no more than that: the scores say what always the best one label gives."
)


def tasks() -> dict[str, dict[str, Any]]:
    """The files of configs/prompts by task."""
    return configs.read("prompts")


def rows(record: Record) -> Iterator[Row]:
    """Numbers of items that were unreadable or cut; each metric (a share) with its standard error and floors."""
    params, metrics = record.cell.params, record.metrics
    shared = {"order": params["order"], "way": params["way"], "docs": metrics["docs"]}
    shared["data"] = metrics["data_fingerprint"]
    yield {"metric": "unparsed", "value": metrics["unparsed"], **shared}
    yield {"metric": "cut", "value": metrics["cut"], **shared}
    if isinstance(items := record.samples["items"], list):
        shared["questions"] = len({item["question"] for item in items})
        for metric in orders.METRICS:
            yield {"metric": metric, **orders.score(items, metrics["labels"], metric)._asdict(), **shared}


def views(results: Results) -> Iterator[View]:
    """One section for each kind of weights and machine; nothing where nothing was asked."""
    frame = results.frame("prompts")
    if frame.empty:
        return
    for number, key, part in parts(ordered(frame, "family"), WHERE):
        weights, *where = map(str, key)
        name = f"prompts{number}"
        marked = mark(weights)
        effects = list(_effects(part, results))
        notes = [tasks()[task]["note"] for task in dict.fromkeys(part.task) if "note" in tasks()[task]]
        text = [TEXT, *([NOTES[weights]] if weights in NOTES else []), *notes, f"Measured on {', '.join(where)}."]
        pictures = [_picture(effects, name, f"{', '.join(where)} · {marked}")] if effects else []
        tables = [_scores(part, name, marked), *([_effect_table(effects, name)] if effects else [])]
        tables += [] if weights == "pocket" else list(_published(part, name))
        text += _f1_alone(effects)
        tested = [] if weights == "random" else list(_comparisons(effects))
        title = f"Order of the prompt, {marked}"
        yield View(name, title, text, tables, pictures, comparisons=tested)


def _comparisons(effects: Sequence[dict[str, Any]]) -> Iterator[Comparison]:
    """What the order does to each model's accuracy."""
    for compared in effects:
        effect, (first, second) = compared["effect"], compared["orders"]
        wins = (effect.second_only - effect.first_only) / effect.items
        unread = UNREADABLE if max(effect.unread) > effect.items / 2 else ""
        turned = TURNED if wins * effect.lead < 0 else ""
        yield Comparison(
            f"{compared['row'].label}, accuracy of {second} against {first}",
            ON,
            f"{tasks()[compared['task']]['label']} ({compared['way']})",
            wins,
            f"{numbers.points(wins)} points ({effect.items} items)",
            effect.p,
            undecided=unread or turned,
            caution=ONE_TRAINING,
        )


def _f1_alone(effects: Sequence[dict[str, Any]]) -> Iterator[str]:
    """How often macro-F1 says more of the order than accuracy does."""
    by_f1 = [e["effect"] for e in effects if tasks()[e["task"]]["metric"] == "macro_f1"]
    moved = [effect for effect in by_f1 if not effect.low <= 0 <= effect.high]
    alone = sum(effect.p >= LEVEL for effect in moved)
    if by_f1:
        yield (
            f"Of {len(by_f1)} effects on macro-F1, {len(moved)} have a 95 % interval that leaves zero out; in {alone} "
            f"of these the test of accuracy shows no difference at {LEVEL:g}, uncorrected."
        )


def _scores(frame: pd.DataFrame, name: str, mark: str) -> Table:
    lines = []
    for key, part in frame.groupby(["task", "order", "way"], sort=False):
        task, order, way = map(str, key)
        for _, cell in part.groupby("cell", sort=False):
            value = cell.set_index("metric")
            first = cell.iloc[0]
            lines.append(
                {
                    "task": tasks()[task]["label"],
                    "order": order,
                    "answer": way,
                    "model": first.label,
                    "items": f"{first.docs:.0f}",
                    **{
                        metric: f"{_score(value.loc[metric])} "
                        f"({numbers.percent(value.chance[metric])}, {numbers.percent(value.fixed[metric])})"
                        for metric in orders.METRICS
                    },
                    "unreadable": f"{value.value.unparsed:.0f}",
                    "cut": f"{value.value.cut:.0f}",
                }
            )
    ways = "; ".join(f"{way}: {what}" for way, what in WAYS.items())
    note = (
        f"Percent ± standard error (what a guess gives, what always the best one label gives). {ways}. macro_f1: "
        "the mean of the labels' F1. cut: items that lost their beginning, since the window was too short."
    )
    table = pd.DataFrame(lines)
    return Table(name, f"Scores by order, {mark}", table, note + bounds_note(table))


def _score(row: Any) -> str:
    """Of a row whose index is its metric: macro-F1 is no share of the items."""
    return numbers.score(row.value, row.stderr, row.questions if row.name == "accuracy" else None)


def _effects(frame: pd.DataFrame, results: Results) -> Iterator[dict[str, Any]]:
    for key, part in frame.groupby(["task", "way", "label", "data"], sort=False):
        task, way, *_ = map(str, key)
        cells = part.drop_duplicates("order").set_index("order")
        for first, second in tasks()[task]["effects"]:
            if first in cells.index and second in cells.index:
                before, after = (results.items(*cells.loc[order, ["cell", "machine"]]) for order in (first, second))
                if all(a["cut"] or b["cut"] for a, b in zip(before, after, strict=True)):
                    continue
                effect = orders.effect(before, after, len(tasks()[task]["labels"]), tasks()[task]["metric"])
                row = cells.loc[first]
                yield {"task": task, "way": way, "orders": (first, second), "row": row, "effect": effect}


def _effect_table(effects: Sequence[dict[str, Any]], name: str) -> Table:
    lines = []
    for compared in effects:
        entry, effect = tasks()[compared["task"]], compared["effect"]
        lines.append(
            {
                "task": entry["label"],
                "metric": entry["metric"],
                "answer": compared["way"],
                "model": compared["row"].label,
                "orders": f"{compared['orders'][1]} minus {compared['orders'][0]}",
                "difference": numbers.points(effect.difference, effect.low, effect.high),
                "items": effect.items,
                "accuracy": numbers.points((effect.second_only - effect.first_only) / effect.items),
                "right only text first": effect.first_only,
                "right only question first": effect.second_only,
                "p": numbers.p_value(effect.p),
            }
        )
    return Table(f"{name}-effects", "What the order does", pd.DataFrame(lines), EFFECT)


def _picture(effects: Sequence[dict[str, Any]], name: str, footer: str) -> Picture:
    """A panel a way of answering: for each task and pair of orders a point a model."""
    panels = []
    by_way = operator.itemgetter("way")
    for way, group in itertools.groupby(sorted(effects, key=by_way), key=by_way):
        of_way = list(group)
        places = list(dict.fromkeys((e["task"], e["orders"]) for e in of_way))
        labels = list(dict.fromkeys(e["row"].label for e in of_way))
        series = []
        for i, label in enumerate(labels):
            points = [e for e in of_way if e["row"].label == label]
            shift = 0.12 * (i - (len(labels) - 1) / 2)
            x = [places.index((e["task"], e["orders"])) + shift for e in points]
            y, low, high = ([100 * getattr(e["effect"], k) for e in points] for k in ("difference", "low", "high"))
            series.append(Series(label, points[0]["row"].family, x, y, low, high, joined=False))
        names = [_place(task, pair) for task, pair in places]
        panels.append(Panel(HOW[way], "", "percentage points", series, x_names=names, signed=True))
    return Picture(f"{name}-effects", "Question first minus text first, 95 % intervals", panels, footer)


def _place(task: str, pair: tuple[str, str]) -> str:
    more = pair[0].partition(", ")[2]
    return f"{tasks()[task]['label']} {tasks()[task]['metric']}" + (f"\n{more}" if more else "")


def _published(frame: pd.DataFrame, name: str) -> Iterator[Table]:
    """The paper's two tables, both versions, with a column a model of ours for each order of its prompt."""
    published = paper.table("prompts")
    names = {entry["published"]: (task, entry) for task, entry in tasks().items() if "published" in entry}
    for source, rows in published.groupby("source", sort=False):
        lines = []
        for printed, theirs in rows.groupby("task", sort=False):
            task, entry = names[printed]
            line = {"task": printed, "metric": theirs.metric.iloc[0]}
            for row in theirs.to_dict("records"):
                line[f"{row['system']}, {row['prompt_style'].partition(' (')[0]}"] = row["value"]
            ours = frame[(frame.task == task) & (frame.metric == entry["metric"])]
            for _, row in ours.set_index("metric").iterrows():
                line[f"{row.label}, {row.order}, {row.way}"] = _score(row)
            lines.append(line)
        number = str(source).replace("arXiv:2305.13048", "the paper's ")
        table = pd.DataFrame(lines).fillna("-")
        note = "Percent; ours with their standard error, on the items and the weights named above."
        slug = "".join(c for c in str(source).partition("13048")[2].lower() if c.isalnum())
        title = f"{number[0].upper()}{number[1:]}, ours beside it"
        yield Table(f"{name}-{slug}", title, table, note + bounds_note(table))


APART = {"task", "order", "way"}
COMPARED: dict[str, Kind] = dict.fromkeys(orders.METRICS, "score")
READING = Reading(rows, APART, oldest=2, line_of_cell=True, items="items", compared=COMPARED)
SECTION = Section(views, {"prompts": READING})
