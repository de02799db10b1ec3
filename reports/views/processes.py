"""Several processes that generated the same tokens, as one."""

from __future__ import annotations

import itertools

import pandas as pd

from reports.draw import numbers
from reports.statistics.bands import spread

FEW = 3  # of fewer nothing is said without a caution
BETWEEN = "times of the same work differ more between processes than between repeats of one"
ONE_PROCESS = "Fewer than three processes of each: the spread may be larger than shown."
WHERE = ["machine", "device", "dtype", "threads", "batch", "weights", "prompt_tokens"]


def on(part: pd.DataFrame) -> str:
    """What the rows of a section were measured on."""
    first = part.iloc[0]
    threads = numbers.count(first.threads)
    return f"{first.machine} · {first.device} · {first['dtype']} · {threads} threads · {first.weights} weights"


def pooled(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of processes that did the same work as those of one: all their repeats together, of those that nothing
    disturbed where there are any. processes: how many.
    """
    if frame.empty:
        return frame
    work = [*WHERE, "label", "protocol", "new_tokens"]
    value = [*work, "metric", "tokens"]
    frame = frame[frame.disturbed == frame.groupby(value, dropna=False).disturbed.transform("min")]
    frame = frame.sort_values(["measured_at", "process"], kind="stable")
    latest = frame.groupby([*value, "process"], dropna=False).cell.transform("last")
    frame = frame[frame.cell == latest]
    processes = frame.groupby(value, dropna=False).process.transform("nunique")
    cell = frame.groupby(work, dropna=False).cell.transform("first")
    frame = frame.assign(processes=processes, cell=cell)
    rows = frame[frame.processes == 1].to_dict("records")
    for _, same in frame[frame.processes > 1].groupby(value, sort=False, dropna=False):
        row = same.iloc[0].to_dict()
        if isinstance(row["samples"], list):
            row.update(spread(str(row["metric"]), itertools.chain(*same.samples)))
        rows.append(row)
    return pd.DataFrame(rows)
