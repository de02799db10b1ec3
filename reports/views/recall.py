"""Views of recall: accuracy against the number of pairs, one order against the other, floors and bytes beside."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pandas as pd

from reports.draw import looks, numbers
from reports.draw.figure import Panel, Picture, Series
from reports.draw.table import Table
from reports.reading import Kind, Reading, Row
from reports.records.record import Record
from reports.results import Results
from reports.sentences import AT, Comparison
from reports.views import seeds
from reports.views.families import compared, ordered, ours
from reports.views.view import Section, View, bounds_note, of_task, parts, task_titles

WHERE = ["machine", "device"]
SETTING = ["alphabet", "steps", "batch", "tokens"]
ALIKE = 0.02  # nats: rates whose losses differ by less are equally good
RUN = ["mixer", "task", "size", *SETTING]  # what seeds and rates are compared within
TITLES = {  # of tasks whose records say none
    "mqar": "Every key again: its value (MQAR)",
    "query_first": "Key, then pairs: its value",
    "query_last": "Pairs, then key: its value",
    "copying": "Copying",
    "passkey": "A marked value after so many tokens",
    "parity": "Parity of all bits so far",
    "permutations3": "Product of permutations of 3",
    "permutations5": "Product of permutations of 5",
}
TEXT = (
    "Small models, each trained from scratch on one kind of sequences of one size. A state has the same bytes however "
    "much was said; a cache grows with it. {ours}'s token shift binds a value to the key before it, which attention "
    "must learn: attention with a shift before each sublayer (one share a channel, where {ours} has one for each of "
    "its projections) is the fair control, and {ours} is compared with it alone. Sequences are scored at the length of "
    "training: what is learned of parity may hold at that length only. Shown is, for each size, the learning rate with "
    "the lowest loss at the end of training (on sequences that were new; over the seeds that had all rates) and its "
    "accuracy on others: the mean over the seeds, with the least and the largest as a band. " + seeds.CHOSE
)


def rows(record: Record) -> Iterator[Row]:
    """The accuracy (a share) with its floors, the loss at the end of training (nats), the state's bytes."""
    params, metrics = record.cell.params, record.metrics
    shared = {
        "size": params["size"],
        "alphabet": params["alphabet"],
        "rate": params["learning_rate"],
        "shift": params["token_shift"],
        "shuffled": params["shuffled"],
        "steps": params["steps"],
        "tokens": metrics["tokens"],
        "seed": record.cell.seed,
        **of_task(record),
    }
    floors = {floor: metrics[floor] for floor in ("chance", "majority", "rule")}
    yield {"metric": "accuracy", "value": metrics["accuracy"], "docs": metrics["docs"], **floors, **shared}
    yield {"metric": "loss", "value": metrics["loss"], **shared}
    yield {"metric": "state_bytes", "value": metrics["state_bytes"], **shared}


def views(results: Results) -> Iterator[View]:
    """One section for each machine; nothing where nothing was trained."""
    frame = results.frame("recall")
    if frame.empty:
        return
    frame = ordered(frame, "family", "size")
    plain = [label.removesuffix(variant) for label, variant in zip(frame.label, frame.variant, strict=True)]
    frame["mixer"] = [label.partition(",")[0] for label in plain] + frame["shift"].map(
        {True: " + token shift", False: ""}
    )
    frame["mixer"] += frame.shuffled.map({True: ", answers shuffled", False: ""}) + frame.variant
    for number, where, part in parts(frame, WHERE):
        name = f"recall{number}"
        best = seeds.best_rates(part, RUN, "loss", ALIKE)
        panels = [
            _panel(best[(best.task == task) & (best.alphabet == alphabet)], title, alphabet)
            for task, title in task_titles(best, TITLES).items()
            for alphabet in sorted(set(best[(best.task == task) & ~best.shuffled].alphabet))
        ]
        picture = Picture(name, "Recall and state, from scratch", panels, ", ".join(map(str, where)))
        tables = [_table(best, name), *_orders(best, name), _sweep(part, name)]
        versions = [looks.label(family) for family in dict.fromkeys(part.family) if ours(family)]
        text = [
            TEXT.format(ours=versions[0] if len(versions) == 1 else "RWKV"),
            f"Measured on {', '.join(map(str, where))}.",
        ]
        yield View(name, "Recall and state", text, tables, [picture], comparisons=list(_comparisons(best)))


def _comparisons(best: pd.DataFrame) -> Iterator[Comparison]:
    """Each mixer of ours beside each other one, and the question first beside last, in all that is alike."""
    accuracy = best[(best.metric == "accuracy") & ~best.shuffled]
    titles = task_titles(accuracy, TITLES)
    shifted = set(accuracy[accuracy["shift"]].family)
    for (task, *_), part in accuracy.groupby(["task", "size", *SETTING], sort=False):
        of_mixer = {str(mixer): rows for mixer, rows in part.groupby("mixer", sort=False)}
        for (mine, first), (theirs, second) in itertools.permutations(of_mixer.items(), 2):
            family = second.family.iloc[0]
            if compared(first.family.iloc[0], family) and (family not in shifted or second["shift"].iloc[0]):
                heading = f"{mine} against {theirs}, {titles[str(task)]}"
                yield seeds.beside(heading, AT, _place(part, accuracy), first, second, numbers.percent)
    orders = accuracy[accuracy.task.isin(["query_first", "query_last"])]
    for (mixer, *_), part in orders.groupby(["mixer", "size", *SETTING], sort=False):
        by_task = {str(task): rows for task, rows in part.groupby("task")}
        if len(by_task) == 2:
            heading = f"{mixer}, the question first against last"
            first, last = by_task["query_first"], by_task["query_last"]
            yield seeds.beside(heading, AT, _place(part, accuracy), first, last, numbers.percent)


def _place(part: pd.DataFrame, every: pd.DataFrame) -> str:
    """The size and the training, with the rule of thumb, above which alone a score shows that something is recalled;
    and in what else `every` has several trainings of this task and size.
    """
    one = part.iloc[0]
    alike = every[(every.task == one.task) & (every["size"] == one["size"])]
    other = (f", {name} {one[name]}" for name in SETTING if name != "steps" and alike[name].nunique() > 1)
    rule = numbers.percent(part.rule.mean())
    return f"size {one['size']} ({numbers.count(one.steps)} steps, rule of thumb {rule}{''.join(other)})"


def _panel(part: pd.DataFrame, title: str, alphabet: int) -> Panel:
    accuracy = part[(part.metric == "accuracy") & ~part.shuffled]
    usual = accuracy.steps.mode().min()
    series = []
    for (mixer, steps), line in accuracy.groupby(["mixer", "steps"], sort=False):
        by_size = line.groupby("size").value
        x, y = list(by_size.mean().index), list(100 * by_size.mean())
        low, high = list(100 * by_size.min()), list(100 * by_size.max())
        label = str(mixer) if steps == usual else f"{mixer}, {numbers.count(line.steps.iloc[0])} steps"
        series.append(Series(label, line.family.iloc[0], x, y, low, high, dashed=bool(line["shift"].iloc[0])))
    floor = accuracy.groupby("size")[["rule", "chance"]].first()
    for name, label in (("rule", "rule of thumb"), ("chance", "chance")):
        dashed = name == "rule"
        lone = len(floor) == 1  # no line to see
        series.append(Series(label, label, list(floor.index), list(100 * floor[name]), markers=lone, dashed=dashed))
    title += f" (of {alphabet})" if alphabet else ""
    return Panel(title, "size (pairs, values, tokens between, or steps)", "percent", series, log_x=2)


def _table(best: pd.DataFrame, name: str) -> Table:
    lines = []
    for (task, mixer), part in best.groupby(["task", "mixer"], sort=False):
        for (size, *_), alike in part.groupby(["size", *SETTING]):
            values = alike[alike.metric == "accuracy"]
            lines.append(
                {
                    "task": task,
                    "model": mixer,
                    "size": size,
                    **_setting(values),
                    "accuracy": numbers.score(values.value.mean(), None, values.docs.min()),
                    "least and largest": numbers.extremes(values.value.min(), values.value.max(), numbers.percent),
                    "seeds": len(values),
                    "chance": numbers.percent(values.chance.mean()),
                    "majority": numbers.percent(values.majority.mean()),
                    "rule of thumb": numbers.percent(values.rule.mean()),
                    "rate": f"{values.rate.iloc[0]:g}{' (edge)' if values.edge.iloc[0] else ''}",
                    "parameters": numbers.count(values.parameters.iloc[0]),
                    "state or cache, bytes": numbers.count(alike[alike.metric == "state_bytes"].value.iloc[0]),
                }
            )
    note = (
        "Percent. alphabet: how many keys and how many values there are to pair. rule of thumb: any of the values that "
        "were told, or what is known without looking back (of mqar: the value most often asked for at that rank). "
        "edge: the best rate is the lowest or highest that was tried."
    )
    table = pd.DataFrame(lines)
    return Table(name, "Recall and state, at the best learning rate", table, note + bounds_note(table))


def _setting(values: pd.DataFrame) -> dict[str, str]:
    alphabet, steps, batch, tokens = (values[name].iloc[0] for name in SETTING)
    return {
        "alphabet": f"{alphabet:.0f}" if alphabet else "all",
        "tokens": f"{tokens:.0f}",
        "steps": f"{steps:.0f} of {batch:.0f}",
    }


def _orders(best: pd.DataFrame, name: str) -> Iterator[Table]:
    """Nothing where no size was measured in both orders."""
    lines = []
    accuracy = best[(best.metric == "accuracy") & best.task.isin(["query_first", "query_last"])]
    for mixer, part in accuracy.groupby("mixer", sort=False):
        for (size, *_), alike in part.groupby(["size", *SETTING]):
            by_task = alike.groupby("task").value.mean()
            if len(by_task) == 2:
                gain = by_task.query_first - by_task.query_last
                docs = alike.docs.min()
                first, last = (numbers.score(by_task[task], None, docs) for task in ("query_first", "query_last"))
                line = {"model": mixer, "pairs": size, **_setting(alike), "query first": first, "query last": last}
                lines.append({**line, "what the order gives": numbers.points(gain)})
    if lines:
        table = pd.DataFrame(lines)
        note = f"Percent, means over the seeds.{bounds_note(table)}"
        yield Table(f"{name}-orders", "Question first or last", table, note)


def _sweep(frame: pd.DataFrame, name: str) -> Table:
    """Every rate that was tried."""
    lines = []
    for _, run in frame.groupby(RUN, sort=False):
        means = run.groupby(["rate", "metric"]).value.mean()
        counts = run[run.metric == "loss"].groupby("rate").size()
        tried = {
            f"rate {rate:g}": f"{means[rate, 'loss']:.3f}, {numbers.percent(means[rate, 'accuracy'])} ({counts[rate]})"
            for rate in counts.index
        }
        first = {key: run[key].iloc[0] for key in ("task", "mixer", "size")}
        lines.append({**first, **_setting(run), **tried})
    columns = sorted({key for line in lines for key in line if key.startswith("rate ")}, key=lambda key: float(key[5:]))
    shown = pd.DataFrame(lines)
    shown = shown[[*(key for key in shown if key not in columns), *columns]].fillna("-")
    note = "The loss at the end (nats an answer), the accuracy (percent), means over the seeds; how many seeds."
    return Table(f"{name}-sweep", "Learning rates of the recall models", shown, note)


APART = {"task", "size", "length", "alphabet", "token_shift", "shuffled", "steps", "batch", "learning_rate"}
COMPARED: dict[str, Kind] = {"accuracy": "score", "loss": "score", "state_bytes": "bytes"}
SECTION = Section(views, {"recall": Reading(rows, APART, seeds_pooled=True, compared=COMPARED)})
