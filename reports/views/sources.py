"""The sections that hold published facts alone, or what is computed of them."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from reports.draw import numbers
from reports.draw.table import Table
from reports.published import paper
from reports.results import Results
from reports.views.view import Section, View
from rwkv_core.architectures import ARCHITECTURES

PAPER_VOCABULARY = 50277


def views(_: Results) -> Iterator[View]:
    """The same whatever was measured."""
    yield architectures()
    yield complexity()
    yield contradictions()


def architectures() -> View:
    """Paper Table 2, computed beside published."""
    rwkv4 = ARCHITECTURES["rwkv"]
    assert rwkv4.parameters and rwkv4.flops
    lines = []
    for row in paper.table("architectures").to_dict("records"):
        layers, width = int(row["layers"]), int(row["d_model"])
        shape = {"vocab_size": PAPER_VOCABULARY, "hidden_size": width, "num_hidden_layers": layers}
        parameters, flops = rwkv4.parameters(shape), rwkv4.flops(shape)
        lines.append(
            {
                "model": row["name"],
                "layers": layers,
                "width": width,
                "parameters": numbers.count(parameters),
                "published": row["params"],
                "FLOPs a token": f"{flops:.3e}",
                "published FLOPs": row["flops_per_token"],
                "state, numbers": numbers.count(5 * width * layers),
                "state, float32": numbers.mebibytes(5 * width * layers * 4),
            }
        )
    note = (
        "Parameters 2VD + 13 D^2 L + D(11L + 4), V = 50277; FLOPs 2(VD + 13 D^2 L), which the published numbers "
        "follow, while the sentence in v2 sec. 4 says 2(2VD + 13 D^2 L)."
    )
    table = Table("architectures", "RWKV-4 sizes, computed and published (paper Table 2)", pd.DataFrame(lines), note)
    return View("architectures", "Architectures", tables=[table])


def complexity() -> View:
    """Paper Table 1 of v2, and what v1's has otherwise."""
    first, second = paper.complexity("v1"), paper.complexity("v2")
    lines = []
    for model, row in second.items():
        before = first.get(model)
        differing = ["no row"]
        if before is not None:
            differing = [f"{key} {before[key]}" for key in ("time", "space") if before[key] != row[key]]
        lines.append({key: row[key] for key in ("model", "time", "space")})
        lines[-1] |= {"otherwise in v1": ", ".join(differing) or "-", "note": row["note"]}
    note = "T: sequence length, d: width. Published orders of growth, not measurements."
    table = Table("complexity", "Inference complexity (paper Table 1, v2)", pd.DataFrame(lines), note)
    return View("complexity", "Complexity", tables=[table])


def contradictions() -> View:
    """Where the sources disagree."""
    text = ["What the sources say differently from each other or from the models; shown, not smoothed over."]
    table = Table(
        "contradictions", "Known contradictions in the published numbers", paper.table("contradictions"), prose=True
    )
    return View("contradictions", "Contradictions in the sources", text, [table])


SECTION = Section(views)
