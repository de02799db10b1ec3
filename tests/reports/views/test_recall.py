"""Recall's views: the rate is chosen by the loss and not by the accuracy; floors and bytes stand beside."""

from typing import Any

import pytest

from reports.records.record import Record
from reports.views import recall
from reports.views.table import read
from tests import make


def record(
    model: str, task: str, size: int, rate: float, seed: int, accuracy: float, loss: float, **more: Any
) -> Record:
    params = {"task": task, "size": size, "learning_rate": rate, "token_shift": False, "shuffled": False}
    params |= {"steps": 9, "alphabet": 0, "batch": 128, **more}
    cell = make.cell("recall", model, params, weights=f"fresh:{seed}")
    metrics = {"loss": loss, "accuracy": accuracy, "chance": 0.01, "majority": 0.02, "rule": 1 / size, "docs": 10}
    metrics |= {"tokens": 2 * size + 3, "state_bytes": 640, "parameters": 43840}
    return make.record(cell, metrics, {"loss": [], "right": []})


@pytest.fixture
def records() -> list[Record]:
    found = []
    for task, scores in (("query_first", (0.9, 0.7)), ("query_last", (0.2, 0.4))):
        for seed, score in enumerate(scores):
            found.append(record("recall-rwkv4", task, 16, 0.01, seed, score, 0.5))
            found.append(record("recall-rwkv4", task, 16, 0.03, seed, 1.0, 0.9))  # right by luck, by a larger loss
            found.append(record("recall-attention", task, 16, 0.01, seed, 0.95, 0.1, token_shift=True))
    return found


def test_the_rate_of_the_lowest_loss_is_shown_with_mean_range_and_floors(records: list[Record]) -> None:
    (view,) = recall.views(read(records))
    tables = {table.name: table.frame for table in view.tables}
    line = tables["recall"].set_index(["task", "model"]).loc[("query_first", "RWKV-4")]
    assert (line["accuracy"], line["least and largest"], line["seeds"], line["rate"]) == (
        "80.0",
        "70.0-90.0",
        2,
        "0.01 (edge)",
    )
    assert (line["rule of thumb"], line["state or cache, bytes"]) == ("6.2", "640")
    orders = tables["recall-orders"].set_index("model")
    assert orders.loc["RWKV-4", "what the order gives"] == "+50.0"
    assert orders.loc["attention + token shift", "what the order gives"] == "+0.0"
    assert tables["recall-sweep"].set_index(["task", "mixer"]).loc[("query_last", "RWKV-4"), "rate 0.03"] == (
        "0.900, 100.0 (2)"
    )
    first, last = view.pictures[0].panels
    series = {line.label: line for line in first.series}
    assert series["RWKV-4"].y == pytest.approx([80.0]) and series["rule of thumb"].y == pytest.approx([6.25])
    assert last.title.startswith("Pairs, then key")
    view.pictures[0].draw()


def test_the_text_names_the_version_that_was_trained_and_no_other(records: list[Record]) -> None:
    (view,) = recall.views(read(records))
    assert "where RWKV-4 has one for each" in view.text[0]
    alone = [record("recall-rwkv7", "query_last", 16, 0.01, 0, 0.9, 0.5)]
    (view,) = recall.views(read(alone))
    assert "where RWKV-7 has one for each" in view.text[0]
    (view,) = recall.views(read(records + alone))
    assert "where RWKV has one for each" in view.text[0] and "RWKV-4's" not in view.text[0]


def test_what_was_trained_differently_is_not_pooled(records: list[Record]) -> None:
    other = [
        record("recall-rwkv4", "query_first", 16, 0.03, 0, 0.1, 0.5, **{key: 7})
        for key in ("alphabet", "steps", "batch")
    ]
    (view,) = recall.views(read([*records, *other]))
    frame = view.tables[0].frame.set_index(["task", "model", "alphabet", "steps"])
    assert frame.loc[("query_first", "RWKV-4", "all", "9 of 128"), "accuracy"] == "80.0"
    for alphabet, steps in (("7", "9 of 128"), ("all", "7 of 128"), ("all", "9 of 7")):
        line = frame.loc[("query_first", "RWKV-4", alphabet, steps)]
        assert (line["accuracy"], line["seeds"], line["rate"]) == ("10.0", 1, "0.03 (edge)")
    titles = [panel.title for panel in view.pictures[0].panels]
    assert titles.count("Key, then pairs: its value (of 7)") == 1


def test_rates_are_compared_over_the_seeds_that_had_them_all() -> None:
    tried = [
        record("recall-rwkv4", "query_last", 4, rate, seed, accuracy, loss)
        for rate, seed, accuracy, loss in (
            (0.01, 0, 0.2, 1.0),
            (0.01, 1, 0.2, 0.1),
            (0.03, 0, 0.9, 0.9),
            (0.001, 0, 0.1, 2.0),
        )
    ]
    (view,) = recall.views(read(tried))
    (line,) = view.tables[0].frame.to_dict("records")
    assert (line["accuracy"], line["seeds"], line["rate"]) == ("90.0", 1, "0.03 (edge)")


def test_of_rates_that_are_alike_the_one_with_more_seeds_is_shown() -> None:
    tried = [
        ("recall-rwkv4", "query_last", 4, rate, seed, 1.0, loss)
        for rate, seed, loss in ((0.01, 0, 1e-8), (0.003, 0, 1e-5), (0.003, 1, 1e-5), (0.03, 0, 0.5))
    ]
    (view,) = recall.views(read([record(*one) for one in tried]))
    (line,) = view.tables[0].frame.to_dict("records")
    assert (line["seeds"], line["rate"]) == (2, "0.003 (edge)")


def test_nothing_trained_no_section() -> None:
    assert list(recall.views(read([]))) == []


def test_a_task_that_the_report_does_not_know_is_drawn_last() -> None:
    made = [record("recall-rwkv4", task, 16, 0.01, 0, 0.5, 0.5) for task in ("stack", "queue", "parity")]
    made[0].metrics["title"] = "Last in, first out"
    (view,) = recall.views(read(made))
    titles = [panel.title for panel in view.pictures[0].panels]
    assert titles == ["Parity of all bits so far", "Last in, first out", "queue"]


def test_a_difference_is_named_where_the_seeds_lie_apart_and_few_seeds_are_warned_of(records: list[Record]) -> None:
    (view,) = recall.views(read(records))
    said = {
        (one.heading.partition(",")[0], one.heading.rpartition(",")[2], one.lead > 0): one for one in view.comparisons
    }
    first = said["RWKV-4 against attention + token shift", " then pairs: its value", False]
    assert first.undecided and first.size == "80.0 (70.0-90.0) beside 95.0"
    order = said["RWKV-4", " the question first against last", True]
    assert order.undecided and order.size == "80.0 (70.0-90.0) beside 30.0 (20.0-40.0)"
    assert all("rule of thumb 6.2" in one.item for one in view.comparisons)
    level = said["attention + token shift", " the question first against last", False]
    assert level.lead == 0 and not level.apart
    for last, apart in ((0.3, True), (0.8, False)):
        third = [record("recall-rwkv4", "query_first", 16, 0.01, 2, 0.8, 0.5)]
        third += [record("recall-rwkv4", "query_last", 16, 0.01, 2, last, 0.5)]
        (view,) = recall.views(read([*records, *third]))
        (order,) = [one for one in view.comparisons if one.heading == "RWKV-4, the question first against last"]
        assert order.apart is apart and not order.undecided and "lowest or the highest" in order.caution
        assert order.item.endswith(": 80.0 (70.0-90.0) beside 46.7 (20.0-80.0)") is not apart


def test_trainings_that_differ_in_more_than_their_steps_are_told_apart(records: list[Record]) -> None:
    found = [
        record(f"recall-{family}", "query_last", 16, 0.01, seed, score, 0.5, alphabet=alphabet, token_shift=shift)
        for seed in range(3)
        for alphabet, ahead in ((32, 0.9), (64, 0.2))
        for family, score, shift in (("rwkv4", ahead, False), ("attention", 0.5, True))
    ]
    (view,) = recall.views(read(found))
    places = {one.item: one.lead > 0 for one in view.comparisons if " against " in one.heading}
    place = "size 16 (9 steps, rule of thumb 6.2, alphabet {})"
    assert places == {place.format(32): True, place.format(64): False}
    (view,) = recall.views(read(records))
    assert not any("alphabet" in one.item for one in view.comparisons)


def test_what_is_always_right_has_a_bound() -> None:
    scores = (("query_first", 1.0), ("query_last", 0.0))
    (view,) = recall.views(read([record("recall-rwkv4", task, 16, 0.01, 0, score, 0.5) for task, score in scores]))
    best, orders, *_ = view.tables
    assert best.frame.accuracy.tolist() == ["100.0 (≥ 70.0)", "0.0 (≤ 30.0)"]
    assert orders.frame.loc[0, ["query first", "query last"]].tolist() == ["100.0 (≥ 70.0)", "0.0 (≤ 30.0)"]
    assert "rule of three" in best.note and "rule of three" in orders.note
