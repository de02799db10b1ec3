"""The section of what has no number, or a disturbed one."""

from __future__ import annotations

import pandas as pd

from reports.draw.table import Table
from reports.rows import Row
from reports.views.view import DISTURBED, View


def not_measured(rows: list[Row]) -> View | None:
    """Cells that ended without a number or with a disturbed one, and why; None where there are none."""
    tables = []
    for name, title, disturbed in (
        ("not-measured", "Cells without a number", False),
        ("disturbed", f"Disturbed cells ({DISTURBED}): shown, but compared with nothing", True),
    ):
        lines = [
            {
                "model": r["label"],
                "what": " ".join(filter(None, (r[key] for key in ("task", "mixer", "direction", "protocol")))),
                "device": r["device"],
                "status": r["status"],
                "why": r["error"],
            }
            for r in rows
            if r["metric"] == "status" and r["disturbed"] == disturbed
        ]
        if lines:
            tables.append(Table(name, title, pd.DataFrame(lines), prose=True))
    return View("not-measured", "Not measured, or disturbed", tables=tables) if tables else None
