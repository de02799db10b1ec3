"""The view of the largest batch that fits: measured by growing, beside the formula."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from reports.draw import numbers
from reports.draw.table import Table
from reports.reading import Reading, Row
from reports.records.record import Record
from reports.results import Results
from reports.views.families import ordered
from reports.views.view import Section, View, eager_note, parts

NOTE = (
    "The most sequences whose caches or states fit beside the weights while a step runs, found by growing (exact to "
    "one in 32), and the memory over the bytes of one cache or state alone. What a step takes beyond them, its logits "
    "above all, grows with the batch too: it counts the more, the smaller a state is. +: no larger batch was tried."
)


def rows(record: Record) -> Iterator[Row]:
    """The largest batch, the one by formula, and the bytes that there were for all of it."""
    metrics, context = record.metrics, record.cell.params["context"]
    bound = metrics["largest_batch"] == record.cell.params["most"]
    for name in ("largest_batch", "predicted_batch", "limit_bytes"):
        yield {"metric": name, "value": metrics[name], "tokens": context, "bound": bound}


def views(results: Results) -> Iterator[View]:
    """One section for each machine, device and type."""
    frame = results.frame("capacity")
    for number, _, part in parts(frame, ["machine", "device", "dtype"]):
        first, lines = part.iloc[0], []
        for _, one in ordered(part, "parameters", "family", "tokens").groupby("cell", sort=False):
            values, row = one.set_index("metric").value, one.iloc[0]
            share = values["largest_batch"] / values["predicted_batch"]
            lines.append(
                {
                    "model": row.label,
                    "context": numbers.count(row.tokens),
                    "memory, GB": f"{values['limit_bytes'] / 1e9:.1f}",
                    "sequences": numbers.count(values["largest_batch"]) + ("+" if row.bound else ""),
                    "by formula": numbers.count(values["predicted_batch"]),
                    "of the formula": numbers.percent(share, digits=0) + " %",
                }
            )
        title = f"Largest batch, {first.machine}, {first.device} {first['dtype']}"
        table = Table(f"capacity{number}", "Largest batch that fits", pd.DataFrame(lines), NOTE + eager_note(part))
        yield View(table.name, title, tables=[table])


SECTION = Section(views, {"capacity": Reading(rows, {"context", "gigabytes"}, compared={"largest_batch": "score"})})
