"""Figures of races: the time of each contender, of a kernel against its size, of a model against the context."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from reports.draw import looks
from reports.draw.figure import Panel, Picture, Series
from reports.views import contenders
from reports.views.contenders import COLOURS, PRODUCT, PRODUCTS


def by_size(chosen: pd.DataFrame, name: str, footer: str) -> Picture:
    """Time of every contender against the size of k, one panel a direction."""
    fewest = chosen[chosen.threads == chosen.threads.min()].assign(size=lambda f: f.batch * f.tokens * f.channels)
    panels = []
    families = fewest.family.nunique() > 1
    for (family, what), part in fewest.groupby(["family" if families else "experiment", "what"], sort=False):
        heading = f"{looks.label(family)}, {what}" if families else str(what)
        panels.append(
            Panel(
                heading,
                "elements of k (B x T x C)",
                "milliseconds",
                list(_lines(part, "size", ["floor", PRODUCT])),
                log_x=10,
                log_y=10,
            )
        )
    threads = fewest.threads.iloc[0]
    title = "WKV: time of each implementation" + (f", {threads} thread" if threads else "")
    return Picture(name, title, panels, footer)


def by_context(chosen: pd.DataFrame, name: str, footer: str) -> Iterator[Picture]:
    """Time of a token against the context, one panel a model; nothing where each was raced at one context alone."""
    tokens = chosen[chosen.context.notna() & (chosen.task == "token")]
    fewest = tokens[tokens.threads == tokens.threads.min()]
    panels = []
    for label, part in fewest.groupby("label", sort=False):
        if part.context.nunique() > 1:
            lines = list(_lines(part, "context", PRODUCTS))
            panels.append(Panel(str(label), "tokens of context", "milliseconds a token", lines, log_x=2, log_y=10))
    if panels:
        yield Picture(f"{name}-contexts", "A token of each implementation against context", panels, footer)


def _lines(part: pd.DataFrame, x: str, dashed: Sequence[str]) -> Iterator[Series]:
    """A line a contender."""
    for (contender, variant), line in part.groupby(["contender", "variant"], sort=False):
        line = line.sort_values([x, "batch"]).drop_duplicates(x)
        low, high = (list(line[edge] * 1e3) for edge in ("band_low", "band_high"))
        drawn_as = contenders.base(str(contender))
        colour, label = COLOURS.get(drawn_as, drawn_as), f"{contenders.named(str(contender))}{variant}"
        places, value = list(line[x]), list(line.value * 1e3)
        apart = [(at, 1e3 * y) for at, values in zip(places, line.apart, strict=True) for y in values]
        yield Series(
            label,
            colour,
            places,
            value,
            low,
            high,
            dashed=contender in dashed,
            apart=apart,
            crossed=list(line.disturbed),
        )
