"""Views of the zero-shot matrix: scores with errors, the paper's tables with ours beside, models item by item."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

import configs
from reports.draw.table import Table
from reports.published import paper
from reports.records.record import Record
from reports.rows import Row, from_records, mark
from reports.statistics import paired
from reports.views import scores
from reports.views.view import View
from rwkv_core.errors import BadInput, did_you_mean

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
    "world's own items in the tasks' form. The architectures compare with each other here, and with no other number."
)
NOTES = {"random": RANDOM, "pocket": POCKET}
PAIRS = (
    "Items that only one of the two gets right; the difference of the first minus the second in percentage points with "
    "its 95 % interval, items of one question taken together; p: McNemar's exact test over the questions. "
    "Not corrected for the number of comparisons."
)
FLOORS = ("chance", "a choice the context names", "best fixed answer")
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


def views(rows: Sequence[Row], records: Sequence[Record]) -> Iterator[View]:
    """One section for each protocol, kind of weights and machine that was measured."""
    frame = pd.DataFrame([row for row in rows if row["experiment"] == "zeroshot" and row["metric"] != "status"])
    if frame.empty:
        return
    for i, (key, part) in enumerate(frame.groupby(WHERE, sort=False)):
        protocol, weights, *where = map(str, key)
        name = f"{protocol.replace('.', '')}{f'-{i + 1}' if i else ''}"
        part = part.sort_values("parameters", kind="stable")
        marked = mark(weights)
        footer = f"{', '.join(where)} · {protocol} · {marked}"
        labels = dict(zip(part.cell, part.label, strict=True))
        own = [r for r in records if r.status == "ok" and r.id in labels]
        scored = part.drop_duplicates(["task", "docs", "questions"])
        counts = [
            f"{tasks()[task]['label']} {docs:.0f}" + (f" (of {asked:.0f} questions)" if asked < docs else "")
            for task, docs, asked in zip(scored.task, scored.docs, scored.questions, strict=True)
        ]
        text = [
            *([NOTES[weights]] if weights in NOTES else []),
            PROTOCOLS[protocol],
            f"Measured on {', '.join(where)}. Items: {', '.join(counts)}.",
        ]
        pocket = weights == "pocket"
        beside = () if pocket else _published(part, name, weights == "trained")
        tables = [_scores(part, name, marked), *beside, *_pairs(own, labels, name, marked)]
        pictures = (
            [scores.by_task(part, tasks(), name, footer)] if pocket else scores.pictures(part, tasks(), name, footer)
        )
        yield View(f"zeroshot-{name}", f"Zero-shot tasks, {protocol}, {marked}", text, tables, pictures)


def percent(value: float, error: float | None) -> str:
    return f"{100 * value:.2f}" + ("" if error is None or math.isnan(error) else f" ± {100 * error:.2f}")


def _scores(part: pd.DataFrame, name: str, mark: str) -> Table:
    lines = []
    for label, own in part.groupby("label", sort=False):
        line = {"model": label, "parameters": f"{own.parameters.iloc[0] / 1e6:,.1f} M", "items": _items(own)}
        for task, entry in tasks().items():
            for metric in [entry["metric"], entry.get("second_metric")]:
                if metric and (part.task == task).any():
                    line[f"{entry['label']} {metric}"] = _cell(own, task, metric)
        line["average of twelve"] = _average(own)
        lines.append(line)
    floors = []
    for sample, own in part.groupby("sample", sort=False):  # other items have other floors
        several = [{"model": f"{name}{sample}", "parameters": "", "items": _items(own)} for name in FLOORS]
        for task, entry in tasks().items():
            found = own[(own.task == task) & (own.metric == entry["metric"])]
            for floor, value in zip(several, scores.floors(found), strict=True):
                if value is not None:
                    floor[f"{entry['label']} {entry['metric']}"] = percent(value, None)
        floors += several
    frame = pd.DataFrame([*lines, *(floor for floor in floors if len(floor) > 3)]).fillna("-")
    note = (
        "Percent ± standard error over the items, those of one question taken together (for a perplexity, which is no "
        "percentage, by the delta method). "
        "items: of a task, the least and the most. "
        "Floors: what picking any choice gives on these items, any of those that the context names, and the best "
        "answer given each time; the last two where they are above chance. "
        "Average: of the twelve tasks of v2 Fig. 1, where all were scored."
    )
    return Table(f"zeroshot-{name}", f"Scores, {mark}", frame, note)


def _items(own: pd.DataFrame) -> str:
    least, most = own.docs.min(), own.docs.max()
    return f"{least:.0f}" + (f" to {most:.0f}" if most > least else "")


def _cell(own: pd.DataFrame, task: str, metric: str) -> str:
    row = scores.row(own, task, metric)
    if row is None:
        return "-"
    return perplexity(row.value, row.stderr) if metric == "perplexity" else percent(row.value, row.stderr)


def perplexity(value: float, error: float | None) -> str:
    form = ".2f" if value < 1e5 else ".3g"
    return f"{value:{form}}" + ("" if error is None or math.isnan(error) else f" ± {error:{form}}")


def _average(own: pd.DataFrame) -> str:
    found = scores.average(own, tasks())
    return "-" if found is None else percent(*found)


def _published(part: pd.DataFrame, name: str, comparable: bool) -> Iterator[Table]:
    published = paper.table("zero_shot")
    names = {task: own for own, entry in tasks().items() for task in entry.get("published", [])}
    for table, columns in PAPER_TABLES.items():
        rows = published[published.source == f"arXiv:2305.13048v1 {table}"]
        lines = []
        for model, theirs in rows.groupby("model", sort=False):
            ours = part[part.model == paper.ZERO_SHOT_MODELS.get(str(model), "")]
            for variant in dict.fromkeys(ours.variant) or [""]:
                own = ours[ours.variant == variant]
                line = {"model": f"{model}{variant}"}
                for (task, metric), heading in columns.items():
                    value = theirs[(theirs.task == task) & (theirs.metric == metric)].value
                    row = scores.row(own, names.get(task, ""), {"ppl": "perplexity"}.get(metric, metric))
                    line[heading] = beside(value.iloc[0] if len(value) else "", row, metric == "ppl", comparable)
                lines.append(line)
        note = (
            "published / ours ± standard error / ours minus published; a dash where there is none. "
            + ("" if comparable else "Ours is with random weights, so no difference is printed. ")
            + "Ours are these architectures' current checkpoints in configs/models; the paper's Pythia is nearest "
            "to the deprecated v0, and its HeadQA may be the Spanish set (see the contradictions)."
        )
        title = f"The paper's {table} (v1), ours beside it"
        yield Table(f"zeroshot-{table.replace(' ', '').lower()}-{name}", title, pd.DataFrame(lines), note)


def beside(published: str, row: Any, plain: bool, comparable: bool) -> str:
    """published / ours ± error / difference, in percent unless `plain`."""
    scale = 1.0 if plain else 100.0
    if row is None:
        return f"{published or '-'} / -"
    ours = perplexity(row.value, row.stderr) if plain else percent(row.value, row.stderr)
    if not comparable or not published:
        return f"{published or '-'} / {ours}"
    return f"{published} / {ours} / {scale * row.value - float(published):+.2f}"


def _pairs(records: Sequence[Record], labels: Mapping[str, str], name: str, mark: str) -> Iterator[Table]:
    """RWKV-4 against each other family, where the sizes are within a factor of 1.5."""
    lines = []
    for first, second in itertools.permutations(records, 2):
        a, b = first.cell["model"], second.cell["model"]
        alike = 1 / 1.5 < a["parameters"] / b["parameters"] < 1.5
        if a["family"] == "rwkv4" != b["family"] and alike and same_items(first, second):
            lines.append(pair(first, second, labels))
    if lines:
        yield Table(f"zeroshot-pairs-{name}", f"Item by item, {mark}", pd.DataFrame(lines), PAIRS)


def comparison(records: Sequence[Record], first: str, second: str) -> Table:
    """Any two models, by name or by label, on every task and protocol that both were scored on; two checkpoints of one
    name with each other, where it is given twice. Raises BadInput where there is none.
    """
    scored = [r for r in records if r.status == "ok" and r.cell["experiment"] == "zeroshot"]
    rows = {row["cell"]: row for row in from_records(scored)}
    known = [(r, {r.cell["model"]["name"], rows[r.id]["label"]}) for r in scored if r.id in rows]
    names = sorted(set().union(*(called for _, called in known)))
    for name in (first, second):
        if name not in names:
            raise BadInput(f"no zero-shot records of {name!r} in there{did_you_mean(name, names) if names else ''}")
    differing = [key for key in WHERE[1:] if len({row[key] for row in rows.values()}) > 1]  # sections elsewhere
    labels = {cell: ", ".join([row["label"], *(row[key] for key in differing)]) for cell, row in rows.items()}
    pairs = itertools.permutations(known, 2) if first != second else itertools.combinations(known, 2)
    lines = [
        {"protocol": a.cell["params"]["protocol"], **pair(a, b, labels)}
        for (a, one), (b, other) in pairs
        if first in one and second in other and labels[a.id] != labels[b.id] and same_items(a, b)
    ]
    if not lines:
        raise BadInput(f"{first} and {second} were not scored on the same items of any task")
    return Table("comparison", f"{first} and {second}, item by item", pd.DataFrame(lines), PAIRS)


def same_items(first: Record, second: Record) -> bool:
    """Whether two records scored the same content by the same protocol, and hold their items."""
    if not all(isinstance(record.samples.get("items"), list) for record in (first, second)):
        return False
    if first.cell["params"]["task"] != second.cell["params"]["task"]:
        return False
    if first.cell["params"]["protocol"] != second.cell["params"]["protocol"]:
        return False
    return bool(first.metrics["data_fingerprint"] == second.metrics["data_fingerprint"])


def pair(first: Record, second: Record, labels: Mapping[str, str]) -> dict[str, str]:
    """One line of the comparison of two records of the same items. labels: of the records, by id."""
    entry = tasks()[first.cell["params"]["task"]]
    metric = entry["metric"]
    found = paired.compare(first.samples["items"], second.samples["items"], metric)
    return {
        "task": entry["label"],
        "first": labels[first.id],
        "second": labels[second.id],
        "metric": metric,
        "items": str(found.items),
        "only first": str(found.first_only),
        "only second": str(found.second_only),
        "difference": f"{100 * found.difference:+.2f} ({100 * found.low:+.2f} to {100 * found.high:+.2f})",
        "p": f"{found.p:.3f}" if found.p >= 0.0005 else "<0.001",
    }
