"""What a page is made of: sections with text, tables and pictures; those of published facts are here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

import configs
from reports import paper
from reports.figures import Picture
from reports.rows import Row
from reports.tables import Table, mebibytes
from rwkv_core.architectures import rwkv4_flops, rwkv4_parameters

PAPER_VOCABULARY = 50277
DISTURBED = "†"  # behind a time
ORDERS = {"family": "families", "mixer": "mixers"}  # column: the file of configs whose order it has


@dataclass(frozen=True)
class View:
    """A section of the page. text: paragraphs, plain."""

    name: str
    title: str
    text: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


def disturbed_note(frame: pd.DataFrame) -> str:
    """What stands below a table of times of which some are disturbed."""
    note = f" {DISTURBED} Something else took the machine meanwhile (see the last sections): compared with nothing."
    return note if frame.disturbed.any() else ""


def ordered(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Sorted by these columns; families and mixers stand as in the figures, RWKV-4 first, unknown ones last."""

    def places(column: pd.Series[Any]) -> pd.Series[Any]:
        if column.name not in ORDERS:
            return column
        names = list(dict.fromkeys([*configs.read(ORDERS[str(column.name)]), *column]))
        return column.map(names.index)

    return frame.sort_values(list(columns), key=places, kind="stable")


def architectures() -> View:
    """Paper Table 2, computed beside published."""
    lines = []
    for row in paper.table("architectures").to_dict("records"):
        layers, width = int(row["layers"]), int(row["d_model"])
        parameters = rwkv4_parameters(PAPER_VOCABULARY, width, layers)
        flops = rwkv4_flops(PAPER_VOCABULARY, width, layers)
        lines.append(
            {
                "model": row["name"],
                "layers": layers,
                "width": width,
                "parameters": f"{parameters:,}",
                "published": row["params"],
                "FLOPs a token": f"{flops:.3e}",
                "published FLOPs": row["flops_per_token"],
                "state, numbers": f"{5 * width * layers:,}",
                "state, float32": mebibytes(5 * width * layers * 4),
            }
        )
    note = (
        "Parameters 2VD + 13 D^2 L + D(11L + 4), V = 50277; FLOPs 2(VD + 13 D^2 L), which the published numbers "
        "follow, while the sentence in v2 sec. 4 says 2(2VD + 13 D^2 L)."
    )
    table = Table("architectures", "RWKV-4 sizes, computed and published (paper Table 2)", pd.DataFrame(lines), note)
    return View("architectures", "Architectures", tables=[table])


def complexity() -> View:
    """Paper Table 1."""
    frame = paper.table("complexity")[["model", "time", "space", "note"]]
    note = "T: sequence length, d: width. Published orders of growth, not measurements."
    return View(
        "complexity", "Complexity", tables=[Table("complexity", "Inference complexity (paper Table 1)", frame, note)]
    )


def contradictions() -> View:
    """Where the sources disagree."""
    text = ["What the sources say differently from each other or from the models; shown, not smoothed over."]
    table = Table(
        "contradictions", "Known contradictions in the published numbers", paper.table("contradictions"), prose=True
    )
    return View("contradictions", "Contradictions in the sources", text, [table])


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
