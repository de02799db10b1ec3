"""The views of the needles: each depth's share, bytes and floors beside, the models' kind said."""

from dataclasses import replace

import pytest

from reports.draw.figure import HeatMap
from reports.records.record import Record
from reports.views import needles
from reports.views.table import read
from rwkv_core import models
from tests import make


def record(
    model: str,
    length: int,
    items: list[tuple[float | None, float]],
    task: str = "pocket_needle",
    weights: str = "",
) -> Record:
    spec = models.find(model, weights=weights) if weights else models.find(model)
    params = {"task": task, "length": length, "docs": len(items), "tokenizer": "own", "seed": 0}
    metrics = {"trained_tokens": spec.context_length, "chance": 0.05, "named": 0.25, "parameters": 10}
    metrics |= {"tokens": length - 1, "state_bytes": spec.state_bytes(length)}
    answers = [{"depth": depth, "share": share, "answer": "x"} for depth, share in items]
    return make.record(make.cell("needles", spec, params), metrics, {"items": answers})


@pytest.fixture
def records() -> list[Record]:
    near = [(0.0, 0.0), (0.1, 1.0), (0.5, 1.0), (0.52, 1.0), (1.0, 1.0)]
    return [
        record("pocket-pythia", 128, near),
        record("pocket-pythia", 64, [(0.0, 1.0), (1.0, 1.0)]),
        record("pocket-rwkv4", 64, [(0.0, 0.0), (1.0, 0.5)]),
    ]


def test_a_fact_is_counted_at_the_nearest_depth(records: list[Record]) -> None:
    (view,) = needles.views(read(records))
    assert view.title == "A fact in a long text, pocket world"
    (picture,) = view.pictures
    rwkv, pythia = picture.panels
    assert isinstance(rwkv, HeatMap) and isinstance(pythia, HeatMap)
    assert rwkv.title.startswith("pocket RWKV-4") and rwkv.percent == [[0.0], [50.0]]
    assert list(pythia.y_names) == ["0 %", "50 %", "100 %"]
    assert [name.split("\n")[0] for name in pythia.x_names] == ["64", "128"]
    assert pythia.percent == [[100.0, 50.0], [None, 100.0], [100.0, 100.0]]
    picture.draw()


def test_the_table_has_error_floors_and_bytes(records: list[Record]) -> None:
    (view,) = needles.views(read(records))
    frame = view.tables[0].frame.set_index(["model", "tokens"])
    line = frame.loc[("pocket Pythia", "128 (127)")]
    assert (line["found"], line["texts"], line["chance"], line["any named"]) == ("80.0 ± 20.0", "5", "5.0", "25.0")
    assert frame.loc[("pocket RWKV-4", "64 (63)"), "state or cache"] == "0.01 MiB"


def test_a_task_without_depth_is_in_the_table_alone() -> None:
    made = [record("rwkv4-169m", 512, [(None, 1 / 3), (None, 2 / 3)], "fwe")]
    (view,) = needles.views(read(made))
    assert view.tables[0].frame.found.tolist() == ["50.0 ± 16.7"] and not view.pictures
    assert view.title.endswith("trained weights")


def test_a_task_that_the_report_does_not_know_is_drawn_last() -> None:
    tasks = ("pocket_hay", "pocket_needle", "pocket_attic")
    made = [record("pocket-rwkv4", 64, [(0.0, 0.0), (1.0, 1.0)], task) for task in tasks]
    made[0].metrics["title"] = "A needle in hay"
    (view,) = needles.views(read(made))
    known, *unknown = view.pictures
    assert known.title.startswith("One thing put into a room, among many")
    assert [(picture.name, picture.title) for picture in unknown] == [
        ("needles-pocket_attic", "pocket_attic"),
        ("needles-pocket_hay", "A needle in hay"),
    ]


def test_models_are_compared_on_the_same_texts_alone(records: list[Record]) -> None:
    (view,) = needles.views(read(records))
    (one,) = view.comparisons  # RWKV-4 has no text of 128 tokens
    assert (
        one.heading.startswith("pocket RWKV-4 against pocket Pythia")
        and one.item == "64 tokens (25.0 beside 100.0, a guess 25.0)"
    )
    assert one.lead == -0.75 and one.p == 0.5 and "One training" in one.caution
    params = {**records[2].cell.params, "seed": 1}
    for other in (
        record("pocket-rwkv4", 64, [(0.0, 0.0), (0.5, 0.5), (1.0, 0.5)]),
        replace(records[2], cell=replace(records[2].cell, params=params)),
        replace(records[2], metrics={**records[2].metrics, "named": 0.125}),
    ):
        (view,) = needles.views(read([*records[:2], other]))
        assert not view.comparisons, "other texts"
    random = [
        record(model, 64, [(0.0, 0.0), (1.0, 0.5)], weights="random:0") for model in ("rwkv4-169m", "pythia-160m")
    ]
    (view,) = needles.views(read(random))
    assert not view.comparisons, "weights that learned nothing"


def test_a_fact_that_is_always_found_has_a_bound(records: list[Record]) -> None:
    (view,) = needles.views(read([record("pocket-pythia", 64, [(0.0, 1.0)] * 60)]))
    assert view.tables[0].frame.found.item() == "100.0 (≥ 95.0)" and "rule of three" in view.tables[0].note
    (view,) = needles.views(read(records[2:]))
    assert view.tables[0].frame.found.item() == "25.0 ± 25.0" and "rule of three" not in view.tables[0].note
