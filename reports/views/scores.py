"""Pictures of the zero-shot matrix: accuracy against parameters and training FLOPs, a task a panel, and the average."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

import configs
from reports.draw import looks, numbers
from reports.draw.figure import Panel, Picture, Series
from reports.published import paper

NEAR = 2  # standard errors above a baseline, within which a score is no better
CLEAR = 0.01  # a rule that gains less over chance is no floor of its own
Tasks = Mapping[str, Mapping[str, Any]]


def row(part: pd.DataFrame, task: str, metric: str) -> Any:
    """The row of a task's metric; None where it was not measured."""
    rows = part[(part.task == task) & (part.metric == metric)]
    return None if rows.empty else rows.iloc[-1]


def floors(part: pd.DataFrame) -> list[float | None]:
    """Of rows of one task and metric: chance, what the rules of thumb give (see evals.zeroshot.run) where that is
    clearly more, and what configs/baselines.yaml says of the pocket world's items.
    """
    of_world = configs.read("baselines").get(part.weights.iloc[0], {}) if len(part) else {}
    world = of_world.get(part.task.iloc[0]) if of_world else None
    rows = [part[name].astype(float).dropna() for name in ("chance", "named", "fixed")]
    chance, *rules = [None if values.empty else float(values.iloc[0]) for values in rows]
    return [chance, *(rule if rule and chance and rule > chance + CLEAR else None for rule in rules), world]


def near_baselines(part: pd.DataFrame, tasks: Tasks) -> tuple[int, list[Any]]:
    """How many scores, each by its task's metric, have a baseline, and the rows of those that are not clearly above all
    of their `floors`: NEAR standard errors, of 100 % the bound by the rule of three.
    """
    scored, near = 0, []
    for index, row in part[part.metric == part.task.map(lambda task: tasks[task]["metric"])].iterrows():
        baselines = [floor for floor in floors(part.loc[[index]]) if floor is not None]
        if baselines:
            scored += 1
            margin = numbers.bound(row.questions) if row.value == 1 else NEAR * row.stderr
            if row.value == 0 or row.value - margin <= max(baselines):
                near.append(row)
    return scored, near


def average(part: pd.DataFrame, tasks: Tasks) -> tuple[float, float] | None:
    """Mean and standard error over the twelve tasks of one model, each by its metric; None where one is missing."""
    values, errors = [], []
    for task, entry in tasks.items():
        if not entry.get("twelve"):
            continue
        scored = row(part, task, entry["metric"])
        if scored is None:
            return None
        values.append(scored.value)
        errors.append(scored.stderr)
    return sum(values) / len(values), math.sqrt(sum(error**2 for error in errors)) / len(errors)


def pictures(part: pd.DataFrame, tasks: Tasks, name: str, footer: str) -> list[Picture]:
    """Against parameters: every task and the average. Against training FLOPs: the same, of our points and theirs; of
    families that came after the paper only where one of their models was measured.
    """
    published = pd.DataFrame(paper.zero_shot_rows())
    published = published[~published.family.isin(paper.LATER_CURVES) | published.family.isin(part.family)]
    random = " (filled points: RANDOM WEIGHTS, chance)" if (part.weights == "random").any() else ""
    drawn = []
    for axis, title, x_title in (
        ("parameters", "Accuracy against parameters", "parameters (billions)"),
        ("flops", "Accuracy against training FLOPs (6 x parameters x tokens)", "training FLOPs (1e21)"),
    ):
        panels = [
            _panel(task, entry, part, published, axis, x_title)
            for task, entry in tasks.items()
            if entry.get("twelve") and (part.task == task).any()
        ]
        panels.append(_average_panel(part, tasks, axis, x_title))
        picture = Picture(
            f"zeroshot-{axis}-{name}", title + random, [panel for panel in panels if panel.series], footer
        )
        drawn.append(picture)
    return [picture for picture in drawn if picture.panels]


def by_task(part: pd.DataFrame, tasks: Tasks, name: str, footer: str) -> Picture:
    """Every task by its metric, a point a model, the chance level beneath; for models of one size."""
    shown = {task: entry for task, entry in tasks.items() if (part.task == task).any()}
    labels = list(dict.fromkeys(part.label))
    series = []
    for i, label in enumerate(labels):
        rows = [row(part[part.label == label], task, entry["metric"]) for task, entry in shown.items()]
        scored = [(place, one) for place, one in enumerate(rows) if one is not None]
        x = [place + 0.12 * (i - (len(labels) - 1) / 2) for place, _ in scored]
        y = [100 * one.value for _, one in scored]
        error = [100 * one.stderr if pd.notna(one.stderr) else 0.0 for _, one in scored]
        low, high = ([v + sign * e for v, e in zip(y, error, strict=True)] for sign in (-1, 1))
        family = part[part.label == label].family.iloc[0]
        series.append(Series(label, family, x, y, low, high, joined=False))
    levels = [
        (place, floors(scored))
        for place, (task, entry) in enumerate(shown.items())
        for _, scored in part[(part.task == task) & (part.metric == entry["metric"])].groupby("sample", sort=False)
    ]
    chance = [(place, 100 * level) for place, (level, *_) in levels if level is not None]
    better = [(place, 100 * rule) for place, (_, *rules) in levels for rule in rules if rule is not None]
    series += [
        Series(label, label, [place for place, _ in marks], [level for _, level in marks], joined=False)
        for label, marks in (("chance", chance), ("rule of thumb", better))
        if marks
    ]
    names = [f"{entry['label']} {entry['metric']}" for entry in shown.values()]
    panel = Panel("Scores, one standard error", "", "percent", series, x_names=names)
    return Picture(f"zeroshot-tasks-{name}", "Every task, pocket world", [panel], footer)


def _panel(
    task: str, entry: Mapping[str, Any], part: pd.DataFrame, published: pd.DataFrame, axis: str, x_title: str
) -> Panel:
    chosen = part[(part.task == task) & (part.metric == entry["metric"])]
    theirs = published[(published.task == task) & (published.metric == entry["metric"])]
    series = [
        _points(points, str(family), axis, hollow=True) for family, points in theirs.groupby("family", sort=False)
    ]
    series += _families(chosen, axis)
    chance = dict.fromkeys(numbers.percent(level) for level in chosen.chance.dropna())  # other items have another
    note = f"chance: {', '.join(chance)}" if chance else ""
    return Panel(f"{entry['label']}, {entry['metric']}", x_title, "percent", series, log_x=10, note=note)


def _average_panel(part: pd.DataFrame, tasks: Tasks, axis: str, x_title: str) -> Panel:
    lines = []
    for _, of_model in part.groupby("label", sort=False):
        mean = average(of_model, tasks)
        if mean is not None:
            lines.append({**of_model.iloc[0].to_dict(), "value": mean[0], "stderr": mean[1]})
    frame = pd.DataFrame(lines)
    series = _families(frame, axis) if lines else []
    note = "no published number: v2 prints this average only as a plot"
    return Panel("Average of the twelve", x_title, "percent", series, log_x=10, note=note)


def _families(frame: pd.DataFrame, axis: str) -> list[Series]:
    """A line a family; another for what of it was measured in another way."""
    groups = frame.groupby(["family", "variant"], sort=False)
    return [_points(points, str(family), axis, str(variant)) for (family, variant), points in groups]


def _points(points: pd.DataFrame, family: str, axis: str, variant: str = "", *, hollow: bool = False) -> Series:
    ordered = points.sort_values("parameters")
    x = ordered.parameters / 1e9
    if axis == "flops":
        x = 6 * ordered.parameters * configs.read("families").get(family, {}).get("training_tokens", math.nan) / 1e21
    y = 100 * ordered.value
    label = looks.label(family) + (", published" if hollow else "") + variant
    if hollow:
        return Series(label, family, list(x), list(y), hollow=True)
    error = 100 * ordered.stderr
    return Series(label, family, list(x), list(y), list(y - error), list(y + error))
