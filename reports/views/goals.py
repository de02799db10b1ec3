"""What was to be reached by races, and whether it was."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from reports.draw import numbers
from reports.draw.table import Table
from reports.results import Results
from reports.views import contenders
from reports.views.contenders import SHAPE

GOALS = Path(__file__).with_name("goals.csv")


def table(results: Results) -> Table | None:
    """Each ratio of goals.csv that was measured undisturbed, beside its bound; None where none was."""
    frame = results.frame("kernels", "peers")
    if frame.empty:
        return None
    frame = frame[~frame.disturbed].copy()
    frame["channels"] = frame.channels.astype("Int64")
    bounds = pd.read_csv(GOALS, dtype=str)
    lines = []
    for machine, part in frame.groupby("machine", sort=False):
        for goal in bounds.to_dict("records"):
            keys = [key for key in ("experiment", "family", "device", "dtype", *SHAPE) if goal[key] != "-"]
            at = part[(part[keys].astype(str) == [goal[key] for key in keys]).all(axis=1)]
            for _, cell in at.groupby("cell", sort=False):  # what took turns
                slow, fast = (cell[cell.contender == goal[side]] for side in ("slower", "faster"))
                if len(slow) and len(fast):
                    lines.append(_line(goal, machine, slow.iloc[-1], fast.iloc[-1], at.label.nunique() > 1))
    note = (
        "ratio: the median of the ratios within the rounds, in brackets the least and the largest. error: how far the "
        "two, or ours and the oracle, are apart."
    )
    return Table("goals", "What was to be reached", pd.DataFrame(lines), note) if lines else None


def _line(goal: Mapping[Any, str], machine: object, slow: pd.Series, fast: pd.Series, several: bool) -> dict[str, str]:
    scale = slow.scale / fast.scale  # of floors, to the bytes that must move
    pairs = [scale * s / f for s, f in zip(slow.samples, fast.samples, strict=False)]
    ratio, bound = statistics.median(pairs), float(goal["bound"])
    compared = slow if slow.contender in ("c", "triton") or fast.contender == "ours" else fast
    met = ratio >= bound if goal["sense"] == "at least" else ratio <= bound
    return {
        "experiment": goal["experiment"],
        "machine": str(machine),
        "on": f"{goal['device']} {goal['dtype']}",
        "what": contenders.what(slow, several),
        "shape": contenders.shape(slow),
        "threads": goal["threads"],
        "time of": contenders.name(slow),
        "by that of": contenders.name(fast),
        "ratio": numbers.spread(ratio, min(pairs), max(pairs), numbers.ratio),
        "to be": f"{goal['sense']} {bound:g}",
        "reached": "yes" if met else "NO",
        "error": numbers.magnitude(compared.error),
    }
