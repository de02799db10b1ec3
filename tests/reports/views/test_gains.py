"""What a measure gains is told by cells that differ in it alone."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from reports.records.record import Record
from reports.views import gains
from reports.views.table import read
from tests import make
from tests.make import altered
from tests.reports.views.test_decode import record


def variant(
    name: str,
    base: float,
    slope: float,
    dtype: str = "float32",
    cache: str = "preallocated",
    attention: str = "default",
    **metrics: Any,
) -> Iterator[Record]:
    made = [record(name, base, slope, process=process, **metrics) for process in (1, 2, 3)]
    for one in made:
        assert one.cell.model is not None
        cell = replace(one.cell, dtype=dtype, model=replace(one.cell.model, cache=cache, attention=attention))
        yield make.record(cell, one.metrics, one.samples)


def test_each_measure_has_its_line_against_the_plain_one() -> None:
    name, slope = "pythia-160m", 0.02 / 4096
    records = [
        *variant(name, 0.02, slope),
        *variant(name, 0.01, slope, dtype="int8"),
        *variant(name, 0.02, 2 * slope, cache="dynamic"),
        *variant("rwkv4-169m", 0.02, 0.0),
    ]
    (view,) = gains.views(read(records))
    frame = view.tables[0].frame.set_index(["model", "type"])
    assert set(frame.index) == {("Pythia 160M", "int8"), ("Pythia 160M (DynamicCache)", "float32")}
    int8, copied = frame.loc[("Pythia 160M", "int8")], frame.loc[("Pythia 160M (DynamicCache)", "float32")]
    assert (int8.shortest, int8.longest) == ("16", "4,096")
    assert int8["a token, shortest"].startswith("0.50") and int8["a token, longest"].startswith("0.75")
    assert copied["a token, shortest"].startswith("~ 1.00") and copied["a token, longest"].startswith("1.50")


def test_one_way_gains_nothing() -> None:
    assert not list(gains.views(read(list(variant("pythia-160m", 0.02, 0.0)))))


def test_the_widest_type_is_the_plain_one_and_a_graph_is_a_measure() -> None:
    records = [
        *variant("pythia-160m", 0.02, 0.0, dtype="bfloat16", graphed=True),
        *(altered(one, graph=False) for one in variant("pythia-160m", 0.04, 0.0, dtype="bfloat16", graphed=False)),
        *variant("pythia-160m", 0.01, 0.0, dtype="int8", graphed=True),
    ]
    (view,) = gains.views(read(records))
    (table,) = view.tables
    assert "in bfloat16 at" in table.title
    shown = {(line["model"], line["type"]): line["a token, shortest"][:4] for line in table.frame.to_dict("records")}
    assert shown == {("Pythia 160M (no graph)", "bfloat16"): "2.00", ("Pythia 160M", "int8"): "0.50"}


def test_both_times_are_told_at_contexts_that_have_both() -> None:
    (slow, *others) = variant("pythia-160m", 0.02, 0.0, attention="transformers")
    for one in (slow, *others):
        for point in one.samples["points"]:
            point["first_token_seconds"] = [2 * seconds for seconds in point["first_token_seconds"]]
        one.samples["points"][-1]["step_disturbed"] = [True] * 3
    (view,) = gains.views(read([*variant("pythia-160m", 0.02, 0.0), slow, *others]))
    (line,) = view.tables[0].frame.to_dict("records")
    assert line["model"] == "Pythia 160M (transformers' attention)"
    assert (line["shortest"], line["longest"]) == ("16", "1,024")
    assert line["the first token, longest"].startswith("2.00") and line["a token, longest"].startswith("~ 1.00")
