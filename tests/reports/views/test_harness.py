"""Views of scoring beside HFLM: medians, totals with and without the largest task, rounds, disturbed cells, answers."""

from typing import Any

import pandas as pd
import pytest

from reports.records.record import Record
from reports.statistics import totals
from reports.statistics.totals import Times
from reports.views import harness
from reports.views.table import read
from tests import make

TASKS = {  # ours, HFLM at 8 and 16, a round each
    "piqa": ([10.0], {8: [20.0], 16: [40.0]}),
    "copa": ([10.0], {8: [80.0], 16: [40.0]}),
    "record": ([20.0], {8: [200.0], 16: [250.0]}),
}


def record(model: str, task: str, rounds: int = 1, sizes: str = "8, 16", **more: Any) -> Record:
    ours, theirs = TASKS[task]
    params = {"task": task, "docs": 50, "batch_sizes": sizes, "rounds": rounds}
    weights = "pretrained" if model.startswith("pocket") else "random:0"
    metrics = {"docs": 50, "requests": 100, "difference": None, "differing": None, **more.pop("metrics", {})}
    seconds = {"ours": ours * rounds} | {
        str(size): theirs.get(size, [1.0]) * rounds for size in map(int, sizes.split(", "))
    }
    samples = {"seconds": more.pop("seconds", seconds), "disturbance": {"intervals": [], "not_watched": []}}
    samples |= {"forward_s": more.pop("forward_s")} if "forward_s" in more else {}
    return make.record(make.cell("harness", model, params, weights=weights), metrics, samples, **more)


def tables(*records: Record) -> dict[str, pd.DataFrame]:
    return {table.name: table.frame for view in harness.views(read(records)) for table in view.tables}


def test_totals_at_one_size_without_the_largest_task_and_by_task() -> None:
    records = [record("rwkv4-169m", task, attention="wkv4:c") for task in TASKS]
    frames = tables(*records)
    lines = frames["harness"].set_index("task")["RWKV-4 169M, HFLM at 8, 16"]
    assert lines["PIQA"] == "10 / 20, 40 / 2.00" and lines["COPA"] == "10 / 80, 40 / 4.00"
    assert lines["ReCoRD"] == "20 / 200, 250 / 10.00"
    (line,) = frames["harness-totals"].to_dict("records")
    assert line == {
        "model": "RWKV-4 169M",
        "tasks": "3",
        "ours, s": "40",
        "HFLM, s": "300",
        "at": "8",
        "ratio": "7.50",
        "geometric mean": "4.31",  # of 2, 4 and 10
        "largest part": "ReCoRD, 69.2%",  # 180 of 260
        "without it": "4.00 (at 16)",  # 80 over 20, 100 at 8
    }


def test_a_ratio_says_what_it_is_of() -> None:
    records = [record("rwkv4-169m", "piqa", attention="wkv4:c"), record("pythia-160m", "piqa")]
    (view,) = harness.views(read(records))
    text = " ".join(view.text)
    assert "RWKV-4: HFLM runs transformers' implementation in Python" in text and "(wkv4:c)" in text
    assert "Pythia: transformers computes the model on both sides" in text
    assert view.tables[0].note.endswith("One round: no spread was measured. Disturbed tasks are in none of this.")
    assert view.printed == view.tables[0] and list(view.tables[1].frame.columns)[2:] == [
        "RWKV-4 169M, HFLM at 8, 16",
        "Pythia 160M, HFLM at 8, 16",
    ]
    (view,) = harness.views(read([record("pythia-160m", "piqa")]))
    assert "RWKV" not in " ".join(view.text)


def test_several_rounds_have_their_range() -> None:
    seconds = {"ours": [10.0, 10.0, 20.0], "8": [20.0, 30.0, 40.0], "16": [90.0, 90.0, 90.0]}
    several = record("pythia-160m", "piqa", 3, seconds=seconds)
    (view,) = harness.views(read([several]))
    assert "In brackets the least and the largest of the rounds." in view.tables[0].note
    frames = tables(several)
    assert frames["harness"].iloc[0, 2] == "10 / 30, 90 / 3.00 (2.00-3.00)"
    line = frames["harness-totals"].iloc[0]
    assert line["ratio"] == line["geometric mean"] == "3.00 (2.00-3.00)" and line["without it"] == "-"


def test_what_was_disturbed_is_in_no_total() -> None:
    records = [record("pythia-160m", "piqa"), record("pythia-160m", "record", status="disturbed", error="a neighbour")]
    frames = tables(*records)
    assert list(frames["harness"].iloc[:, 2]) == ["10 / 20, 40 / 2.00", "20 / 200, 250† / -"]
    line = frames["harness-totals"].iloc[0]
    assert (line["tasks"], line["ratio"], line["without it"]) == ("1 of 2", "2.00", "-")
    (line,) = tables(records[1])["harness-totals"].to_dict("records")
    assert line == {**dict.fromkeys(harness.TOTALS, "-"), "model": "Pythia 160M", "tasks": "0 of 1"}


def test_the_pure_forward_beside_ours() -> None:
    records = [
        record("pythia-160m", "piqa", forward_s=[9.0]),
        record("pythia-160m", "copa", 3, forward_s=[9.5, 8.0, 10.5]),
        record("rwkv4-169m", "copa", status="disturbed", error="a neighbour", forward_s=[9.0]),
        record("rwkv4-169m", "record"),
    ]
    lines = tables(*records)["harness-forward"].set_index("task")
    assert list(lines.index) == ["COPA", "PIQA", "ReCoRD"]
    assert list(lines["Pythia 160M"]) == ["95% (80%-105%)", "90%", "-"]
    assert list(lines["RWKV-4 169M"]) == ["†", "-", "-"]
    assert "harness-forward" not in tables(records[-1])  # as in records of earlier versions


@pytest.mark.parametrize("differing", [[], ["1 greedy flags", "acc (0.5 for 0.4)"]])
def test_answers_at_batch_size_1_and_no_times_of_it_alone(differing: list[str]) -> None:
    compared = {"difference": 2e-5, "differing": differing}
    small = record("pocket-opt", "piqa", sizes="1", metrics={"difference": 1e-6, "differing": []})
    large = record("pocket-rwkv4", "copa", sizes="1", metrics=compared)
    (view,) = harness.views(read([small, large]))
    (table,) = view.tables
    lines = table.frame.set_index("model")
    assert table.name == "harness-answers" and list(lines["largest difference"]) == ["2e-05", "1e-06"]
    assert lines.loc["pocket RWKV-4", "on"] == "COPA"
    expected = "COPA: 1 greedy flags; acc (0.5 for 0.4)" if differing else "nothing"
    assert lines.loc["pocket RWKV-4", "what else differs"] == expected
    text = " ".join(view.text)
    assert "over 200 requests" in text and "at most 2e-05 apart" in text
    assert ("pocket RWKV-4 on COPA" in text) == bool(differing)
    assert ("every greedy flag and metric is the same" in text) != bool(differing)


@pytest.mark.parametrize(
    ("key", "values", "behind"),
    [
        ("batch_sizes", ("8", "8, 16"), (" (batch sizes 8)", " (batch sizes 8, 16)")),
        ("tokenizer", ("own", f"file:{'a1b2c3' * 3}"), (" (tokenizer own)", " (tokenizer a1b2c3)")),
    ],
)
def test_two_ways_of_measuring_one_model_are_two_columns_and_two_lines(
    key: str, values: tuple[str, str], behind: tuple[str, str]
) -> None:
    frames = tables(*(make.altered(record("pythia-160m", "piqa"), **{key: value}) for value in values))
    assert list(frames["harness-totals"].model) == [f"Pythia 160M{suffix}" for suffix in behind]
    assert all(column.startswith("Pythia 160M (") for column in frames["harness"].columns[2:])
    assert len(frames["harness"].columns) == 4


def test_cells_of_one_model_and_task_that_differ_in_their_rounds_are_one() -> None:
    seconds = {"ours": [20.0] * 3, "8": [20.0] * 3, "16": [40.0] * 3}
    frames = tables(record("pythia-160m", "piqa"), record("pythia-160m", "piqa", 3, seconds=seconds))
    assert frames["harness"].iloc[0, 2] == "20 / 20, 40 / 1.00 (1.00-1.00)"


def test_where_hflm_is_faster_no_share_is_said() -> None:
    faster = {"a": Times(10.0, {8: 4.0}), "b": Times(10.0, {8: 9.0})}
    assert totals.largest(faster, 8) == ("b", None) and totals.ratio(faster, 8) == 0.65
    mixed = {"a": Times(10.0, {8: 5.0}), "b": Times(10.0, {8: 20.0})}
    assert totals.largest(mixed, 8) == ("b", 2.0)  # more than all of the difference: the other task has less
