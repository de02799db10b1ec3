"""Views of recall: accuracy against the number of pairs, one order against the other, floors and bytes beside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from reports.figures import Panel, Picture, Series
from reports.rows import Row
from reports.tables import Table
from reports.views import View

RUN = [
    "mixer",
    "task",
    "size",
    "alphabet",
    "tokens",
    "steps",
    "machine",
    "device",
]  # what seeds and rates are compared within
TITLES = {
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
    "much was said; a cache grows with it. RWKV-4's token shift binds a value to the key before it, which attention "
    "must learn: attention with a shift before each sublayer (one share a channel, where RWKV-4 has one for each of "
    "its projections) is the fair control. Shown is, for each size, the learning rate with the lowest loss at the end "
    "of training (on sequences that were new) and its accuracy on others: the mean over the seeds, with the least and "
    "the largest as a band."
)


def views(rows: Sequence[Row]) -> Iterator[View]:
    """One section, of all machines; nothing where nothing was trained."""
    frame = pd.DataFrame([row for row in rows if row["experiment"] == "recall" and row["metric"] != "status"])
    if frame.empty:
        return
    frame["mixer"] = frame.label + frame["shift"].map({True: " + token shift", False: ""})
    frame["mixer"] += frame.shuffled.map({True: ", answers shuffled", False: ""})
    best = best_rates(frame)
    where = ", ".join(dict.fromkeys(frame.machine))
    tasks = [task for task in TITLES if (best.task == task).any()]
    panels = [_panel(best[best.task == task], TITLES[task]) for task in tasks]
    picture = Picture("recall", "Recall and state, from scratch", panels, where)
    yield View("recall", "Recall and state", [TEXT], [_table(best), _orders(best), _sweep(frame)], [picture])


def best_rates(frame: pd.DataFrame) -> pd.DataFrame:
    """Of each mixer, task and size the rows at the rate whose mean loss over the seeds is lowest, among the rates that
    all seeds ended at; `edge`: no lower or no higher rate was tried.
    """
    found = []
    for _, own in frame.groupby(RUN, sort=False):
        losses = own[own.metric == "loss"].groupby("rate").value.agg(["mean", "count"])
        whole = losses[losses["count"] == losses["count"].max()]
        rate = whole["mean"].idxmin()
        edge = len(losses) > 1 and rate in (losses.index.min(), losses.index.max())
        found.append(own[own.rate == rate].assign(edge=edge))
    return pd.concat(found)


def _panel(part: pd.DataFrame, title: str) -> Panel:
    accuracy = part[part.metric == "accuracy"]
    series = []
    for mixer, own in accuracy.groupby("mixer", sort=False):
        by_size = own.groupby("size").value
        x, y = list(by_size.mean().index), list(100 * by_size.mean())
        low, high = list(100 * by_size.min()), list(100 * by_size.max())
        dashed = bool(own["shift"].iloc[0])
        series.append(Series(str(mixer), own.family.iloc[0], x, y, low, high, dashed=dashed))
    floor = accuracy.groupby("size")[["rule", "chance"]].first()
    for name, label in (("rule", "rule of thumb"), ("chance", "chance")):
        dashed = name == "rule"
        series.append(Series(label, label, list(floor.index), list(100 * floor[name]), markers=False, dashed=dashed))
    return Panel(title, "size (pairs, values, tokens between, or steps)", "percent", series, log_x=2)


def _table(best: pd.DataFrame) -> Table:
    lines = []
    for key, part in best.groupby(["task", "mixer"], sort=False):
        task, mixer = map(str, key)
        for size, own in part.groupby("size"):
            values = own[own.metric == "accuracy"]
            lines.append(
                {
                    "task": task,
                    "model": mixer,
                    "size": size,
                    "tokens": f"{values.tokens.iloc[0]:.0f}",
                    "accuracy": f"{100 * values.value.mean():.1f}",
                    "least and largest": f"{100 * values.value.min():.1f}-{100 * values.value.max():.1f}",
                    "seeds": len(values),
                    "chance": f"{100 * values.chance.mean():.1f}",
                    "majority": f"{100 * values.majority.mean():.1f}",
                    "rule of thumb": f"{100 * values.rule.mean():.1f}",
                    "rate": f"{values.rate.iloc[0]:g}{' (edge)' if values.edge.iloc[0] else ''}",
                    "parameters": f"{values.parameters.iloc[0]:,.0f}",
                    "state or cache, bytes": f"{own[own.metric == 'state_bytes'].value.iloc[0]:,.0f}",
                }
            )
    note = (
        "Percent. rule of thumb: any of the values that were told, or what is known without looking back. edge: the "
        "best rate is the lowest or highest that was tried."
    )
    return Table("recall", "Recall and state, at the best learning rate", pd.DataFrame(lines), note)


def _orders(best: pd.DataFrame) -> Table:
    lines = []
    asked = best[(best.metric == "accuracy") & best.task.isin(["query_first", "query_last"])]
    for mixer, part in asked.groupby("mixer", sort=False):
        for size, own in part.groupby("size"):
            by_task = own.groupby("task").value.mean()
            if len(by_task) == 2:
                gain = by_task.query_first - by_task.query_last
                first, last = (f"{100 * by_task[task]:.1f}" for task in ("query_first", "query_last"))
                line = {"model": mixer, "pairs": size, "query first": first, "query last": last}
                lines.append({**line, "what the order gives": f"{100 * gain:+.1f}"})
    columns = ["model", "pairs", "query first", "query last", "what the order gives"]
    return Table("recall-orders", "Question first or last", pd.DataFrame(lines, columns=columns), "Percent.")


def _sweep(frame: pd.DataFrame) -> Table:
    """Every rate that was tried."""
    keys = ["task", "mixer", "size"]
    lines = []
    for _, own in frame.groupby(RUN, sort=False):
        means = own.groupby(["rate", "metric"]).value.mean()
        tried = {
            f"rate {r:g}": f"{means[r, 'loss']:.3f}, {100 * means[r, 'accuracy']:.1f}" for r in sorted(set(own.rate))
        }
        lines.append({**{name: own[name].iloc[0] for name in keys}, **tried})
    note = "The loss at the end (nats an answer) and the accuracy (percent), means over the seeds."
    return Table("recall-sweep", "Learning rates of the recall models", pd.DataFrame(lines).fillna("-"), note)
