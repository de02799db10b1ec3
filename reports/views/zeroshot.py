"""Views of the zero-shot matrix: scores with errors, the paper's tables with ours beside, models item by item."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pandas as pd

import configs
from reports.draw import numbers
from reports.draw.table import Table
from reports.published import paper
from reports.reading import Kind, Reading, Row
from reports.records.record import Record
from reports.results import Results
from reports.views import pairs, scores
from reports.views.view import Section, View, bounds_note, mark, parts

WHERE = ["protocol", "weights", "machine", "device", "dtype"]
PROTOCOLS = {
    "v0.4": (
        "Protocol v0.4: lm-eval as it is today, which leaves it to each tokenizer whether a special token (such as "
        "OPT's BOS) stands before every text."
    ),
    "v0.3": (
        "Protocol v0.3, as the paper ran it: no second space before choices that have one, context and continuation "
        "tokenised apart, a newline before RWKV's prompts (as its author's script does; Transformers get none)."
    ),
}
RANDOM = (
    "RANDOM WEIGHTS: every score here is chance, or what the lengths of the answers make of it. It shows that the "
    "whole way works, and nothing about the models."
)
POCKET = (
    "POCKET WORLD: models of 1.4 million parameters, trained by this project on a made-up world's text, and that "
    "world's own items in the tasks' form. These weights compare with each other, and with no other number."
)
NOTES = {"random": RANDOM, "pocket": POCKET}
FLOORS = ("chance", "a choice the context names", "best fixed answer", "one that the passage leaves open")
LATER_METRICS = {"acc": "acc", "acc_norm": "acc_norm", "em": "em", "ppl": "perplexity"}  # as published: as measured
PAPER_TABLES = {  # the tables of v1: task as published and metric -> heading
    "Table 3": {
        ("piqa", "acc"): "PIQA",
        ("storycloze_2016", "acc"): "StoryCloze",
        ("hellaswag", "acc_norm"): "HellaSwag",
        ("winogrande", "acc"): "WinoGrande",
        ("arc_easy", "acc"): "ARC-e",
        ("arc_challenge", "acc_norm"): "ARC-c",
        ("openbookqa", "acc_norm"): "OBQA",
    },
    "Table 4": {
        ("lambada", "ppl"): "LAMBADA ppl",
        ("lambada", "acc"): "LAMBADA acc",
        ("headqa", "acc_norm"): "HeadQA",
        ("sciq", "acc"): "SciQ",
        ("triviaqa", "acc"): "TriviaQA",
        ("record", "em"): "ReCoRD",
        ("copa", "acc"): "COPA",
    },
}


def tasks() -> dict[str, dict[str, Any]]:
    """The task list of configs/tasks.yaml."""
    return configs.read("tasks")


def rows(record: Record) -> Iterator[Row]:
    """Each metric (a share, or a perplexity) with its standard error and what the rules of thumb score."""
    metrics = record.metrics
    counts = {"docs": metrics["docs"], "questions": metrics.get("questions", metrics["docs"])}
    for metric in (name.removesuffix("_stderr") for name in metrics if name.endswith("_stderr")):
        floors = {floor: metrics.get(f"{metric}_{floor}") for floor in ("chance", "named", "fixed")}
        error = metrics[f"{metric}_stderr"]
        yield {"metric": metric, "value": metrics[metric], "stderr": error, **counts, **floors}


def views(results: Results) -> Iterator[View]:
    """One section for each protocol, kind of weights and machine that was measured."""
    for number, key, part in parts(results.frame("zeroshot"), WHERE):
        protocol, weights, *where = map(str, key)
        name = f"{protocol.replace('.', '')}{number}"
        part = part.sort_values("parameters", kind="stable")
        marked = mark(weights)
        footer = f"{', '.join(where)} · {protocol} · {marked}"
        comparable = [record for record in results.records_of(part) if record.status == "ok"]
        labels = dict(zip(zip(part.cell, part.machine, strict=True), part.label, strict=True))
        scored = part.drop_duplicates(["task", "docs", "questions"])
        counts = [
            f"{tasks()[task]['label']} {docs:.0f}" + (f" (of {questions:.0f} questions)" if questions < docs else "")
            for task, docs, questions in zip(scored.task, scored.docs, scored.questions, strict=True)
        ]
        text = [
            *([NOTES[weights]] if weights in NOTES else []),
            PROTOCOLS[protocol],
            f"Measured on {', '.join(where)}. Items: {', '.join(counts)}.",
            *_near(part),
        ]
        pocket = weights == "pocket"
        compared = list(pairs.of_families(comparable))
        tested = [] if weights == "random" else list(pairs.comparisons(compared, labels))
        beside = () if pocket else _published(part, name, weights == "trained")
        tables = [_scores(part, name, marked), *beside]
        tables += [pairs.table(compared, labels, name, marked)] if compared else []
        pictures = (
            [scores.by_task(part, tasks(), name, footer)] if pocket else scores.pictures(part, tasks(), name, footer)
        )
        title = f"Zero-shot tasks, {protocol}, {marked}"
        yield View(f"zeroshot-{name}", title, text, tables, pictures, comparisons=tested)


def _scores(part: pd.DataFrame, name: str, mark: str) -> Table:
    lines = []
    for label, subset in part.groupby("label", sort=False):
        line = {
            "model": label,
            "parameters": numbers.millions(subset.parameters.iloc[0], ",.1f"),
            "items": _items(subset),
        }
        for task, entry in tasks().items():
            for metric in [entry["metric"], entry.get("second_metric")]:
                if metric and (part.task == task).any():
                    line[f"{entry['label']} {metric}"] = _cell(subset, task, metric)
        line["average of twelve"] = _average(subset)
        lines.append(line)
    floors = []
    for sample, subset in part.groupby("sample", sort=False):  # other items have other floors
        several = [{"model": f"{name}{sample}", "parameters": "", "items": _items(subset)} for name in FLOORS]
        for task, entry in tasks().items():
            scored = subset[(subset.task == task) & (subset.metric == entry["metric"])]
            for floor, value in zip(several, scores.floors(scored), strict=True):
                if value is not None:
                    floor[f"{entry['label']} {entry['metric']}"] = numbers.percent(value, digits=2)
        floors += several
    frame = pd.DataFrame([*lines, *(floor for floor in floors if len(floor) > 3)]).fillna("-")
    note = (
        "Percent ± standard error over the items, those of one question taken together (for a perplexity, which is no "
        "percentage, by the delta method). "
        "items: of a task, the least and the most. "
        "Floors: what picking any choice gives on these items, any of those that the context names, and the best "
        "answer given each time; the last two where they are above chance. Of the pocket world's LAMBADA also naming "
        "either of the two that a passage begins with, of its ReCoRD anyone of whom it does not say that they knew "
        "nothing. "
        "Average: of the twelve tasks of v2 Fig. 1, where all were scored."
    )
    return Table(f"zeroshot-{name}", f"Scores, {mark}", frame, note + bounds_note(frame))


def _near(part: pd.DataFrame) -> Iterator[str]:
    """How many scores are no better than a baseline, and which; nothing where none has a baseline."""
    scored, near = scores.near_baselines(part, tasks())
    if scored:
        by_model: dict[str, list[str]] = {}
        for row in near:
            by_model.setdefault(row.label, []).append(tasks()[row.task]["label"])
        which = "; ".join(f"{label}: {', '.join(names)}" for label, names in by_model.items()) or "none"
        yield (
            f"Of {scored} scores with a baseline in the table, {len(near)} are within {scores.NEAR} standard errors of "
            f"one (where all or none are right: within the 95 % bound), or below one: {which}."
        )


def _items(part: pd.DataFrame) -> str:
    return numbers.span(part.docs.min(), part.docs.max(), ".0f")


def _cell(part: pd.DataFrame, task: str, metric: str) -> str:
    row = scores.row(part, task, metric)
    if row is None:
        return "-"
    return perplexity(row) if metric == "perplexity" else numbers.score(row.value, row.stderr, row.questions, digits=2)


def perplexity(row: Any) -> str:
    return numbers.with_error(row.value, row.stderr, ".2f" if row.value < 1e5 else ".3g")


def _average(part: pd.DataFrame) -> str:
    mean = scores.average(part, tasks())
    return "-" if mean is None else numbers.percent(*mean, digits=2)


def _published(part: pd.DataFrame, name: str, comparable: bool) -> Iterator[Table]:
    published = paper.table("zero_shot")
    names = paper.task_names()
    for table, columns in PAPER_TABLES.items():
        printed = published[published.source == f"arXiv:2305.13048v1 {table}"]
        lines = []
        for model, theirs in printed.groupby("model", sort=False):
            ours = part[part.model == paper.ZERO_SHOT_MODELS.get(str(model), "")]
            for variant in dict.fromkeys(ours.variant) or [""]:
                of_variant = ours[ours.variant == variant]
                line = {"model": f"{model}{variant}"}
                for (task, metric), heading in columns.items():
                    value = theirs[(theirs.task == task) & (theirs.metric == metric)].value
                    row = scores.row(of_variant, names.get(task, ""), {"ppl": "perplexity"}.get(metric, metric))
                    line[heading] = beside(value.iloc[0] if len(value) else "", row, metric == "ppl", comparable)
                lines.append(line)
        note = (
            "published / ours ± standard error / ours minus published; a dash where there is none. "
            + ("" if comparable else "Ours is with random weights, so no difference is printed. ")
            + "Ours are these architectures' current checkpoints in configs/models; the paper's Pythia is nearest "
            "to the deprecated v0, and its HeadQA may be the Spanish set (contradictions.csv says why)."
        )
        title = f"The paper's {table} (v1), ours beside it"
        frame = pd.DataFrame(lines)
        yield Table(f"zeroshot-{table.replace(' ', '').lower()}-{name}", title, frame, note + bounds_note(frame))
    yield from _later(part, published, name, comparable)


def _later(part: pd.DataFrame, published: pd.DataFrame, name: str, comparable: bool) -> Iterator[Table]:
    """What others print of the models that came after the paper, of those that were measured; a line a source."""
    names = paper.task_names()
    printed = published.assign(
        ours=published.model.map(paper.LATER_MODELS),
        name=published.task.map(names),
        where=published.source.str.partition(":results")[0],
    )
    printed = printed[printed.ours.isin(part.model) & printed.name.notna() & printed.metric.isin(LATER_METRICS)]
    lines = []
    for (model, where), theirs in printed.groupby(["model", "where"], sort=False):
        ours = part[part.model == theirs.ours.iloc[0]]
        for variant in dict.fromkeys(ours.variant):
            of_variant = ours[ours.variant == variant]
            line = {"ours": of_variant.label.iloc[0], "published": model, "where": where}
            for task, metric in itertools.product(tasks(), LATER_METRICS):
                values = theirs[(theirs.name == task) & (theirs.metric == metric)].value
                if len(values):
                    row = scores.row(of_variant, task, LATER_METRICS[metric])
                    line[f"{tasks()[task]['label']} {metric}"] = beside(
                        values.iloc[0], row, metric == "ppl", comparable
                    )
            lines.append(line)
    if lines:
        note = (
            "published / ours ± standard error / ours minus published; a dash where there is none. Published in other "
            "papers, some of which were read in notes of them, and in files of lm-eval; of metrics only those that say "
            "whether they are normalised. What stands before a text differs: with the initial token 0 and without it "
            "LAMBADA of RWKV-7 1.5B differs by half a point."
        )
        frame = pd.DataFrame(lines).fillna("-")
        yield Table(
            f"zeroshot-later-{name}", "Later models as published, ours beside them", frame, note + bounds_note(frame)
        )


def beside(published: str, row: Any, plain: bool, comparable: bool) -> str:
    """published / ours ± error / difference, in percent unless `plain`."""
    scale = 1.0 if plain else 100.0
    if row is None:
        return f"{published or '-'} / -"
    ours = perplexity(row) if plain else numbers.score(row.value, row.stderr, row.questions, digits=2)
    if not comparable or not published:
        return f"{published or '-'} / {ours}"
    return f"{published} / {ours} / {scale * row.value - float(published):+.2f}"


COMPARED: dict[str, Kind] = dict.fromkeys(("acc", "acc_norm", "em", "exact_match", "f1", "perplexity"), "score")
SECTION = Section(
    views,
    {"zeroshot": Reading(rows, {"task", "protocol"}, items="items", compared=COMPARED, on_items=pairs.on_items)},
)
