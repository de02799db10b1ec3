"""The section of what has no number, or a disturbed one."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from reports.draw.table import Table
from reports.results import Results
from reports.views.view import DISTURBED, Section, View


def views(results: Results) -> Iterator[View]:
    """Cells that ended without a number or with a disturbed one, and why; nothing where there are none."""
    tables = []
    for name, title, disturbed in (
        ("not-measured", "Cells without a number", False),
        ("disturbed", f"Disturbed cells ({DISTURBED}): shown, but compared with nothing", True),
    ):
        lines = [
            {
                "model": row["label"],
                "what": " ".join(filter(None, (row[key] for key in ("task", "mixer", "direction", "protocol")))),
                "device": row["device"],
                "status": row["status"],
                "why": row["error"],
            }
            for row in results.refused()
            if row["disturbed"] == disturbed
        ]
        if lines:
            tables.append(Table(name, title, pd.DataFrame(lines), prose=True))
    if tables:
        yield View("not-measured", "Not measured, or disturbed", tables=tables)


SECTION = Section(views)
