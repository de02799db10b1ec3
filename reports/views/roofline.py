"""How near steps come to the limits of a device, which bandwidth sets at few sequences and operations at many."""

from __future__ import annotations

import pandas as pd

from reports.draw.figure import Panel, Picture, Series
from reports.views import curves

SCALE = 1e9
ROOF = "rule of thumb"  # how its line looks
X, Y = "operations for each byte that is read", "billion operations a second"


def picture(part: pd.DataFrame, context: int, name: str, footer: str) -> Picture:
    """Operations a second of steps at a context against operations a byte, a point a batch, with the roof: what
    bandwidth and operations, both measured, allow at most. part: rows of one machine, device and type.
    """
    bandwidth, peak = (part[part.metric == metric].value.max() for metric in ("bandwidth", "operations"))
    ridge = peak / bandwidth
    at = part[part.tokens == context].sort_values("batch", kind="stable")
    panels = []
    for size, chosen in curves.classes(at[at.metric == "step_s"]):
        series = []
        for label, one in chosen.groupby("label", sort=False):
            same = at[at.label == label]
            done, read = (_by_batch(same, metric)[one.batch] for metric in ("step_operations", "read_bytes"))
            x, y = done.to_numpy() / read.to_numpy(), done.to_numpy() / one.value.to_numpy() / SCALE
            series.append(Series(str(label), one.family.iloc[0], list(x), list(y)))
        ends = [min(min(one.x) for one in series) / 2, ridge, max(2 * ridge, *(max(one.x) for one in series))]
        roof = [min(peak, x * bandwidth) / SCALE for x in ends]
        series.append(Series("the roof", ROOF, ends, roof, markers=False, dashed=True))
        panels.append(Panel(f"{size} parameters", X, Y, series, log_x=2, log_y=10))
    return Picture(name, "Steps under the roof of this device, a point a batch", panels, footer)


def _by_batch(rows: pd.DataFrame, metric: str) -> pd.Series[float]:
    return rows[rows.metric == metric].set_index("batch").value
