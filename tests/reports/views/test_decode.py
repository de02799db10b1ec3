"""Generation at growing context: points, crossings that are known beforehand, totals, and what is not compared."""

import math
from dataclasses import replace
from typing import Any

import pytest

from reports.draw import numbers
from reports.records.record import Record
from reports.sentences import of_page
from reports.statistics.crossing import Point, crossing
from reports.views import decode, totals
from reports.views.processes import pooled
from reports.views.table import read
from rwkv_core import models
from tests import make
from tests.make import altered, measured_elsewhere

CONTEXTS = (16, 1024, 4096)
GB = 1e9


def record(
    name: str, base: float, slope: float = 0.0, spread: float = 0.02, process: int = 1, **metrics: Any
) -> Record:
    """Steps of base + slope * context seconds, three repeats `spread` apart; a prompt takes a millisecond a token."""
    spec = models.find(name, weights="random:0")
    points = [
        {
            "context_tokens": n,
            "first_token_seconds": [n * 1e-3],
            "first_token_disturbed": [False],
            "step_disturbed": [False] * 3,
            "step_seconds": [[(base + slope * n) * factor] * 4 for factor in (1 - spread, 1, 1 + spread)],
            "joules": [None] * 3,
            "state_bytes": spec.state_bytes(n),
            "chunk_bytes": 3 << 20,
            "step_bytes": 1 << 20,
            "disagreement": 1e-6,
        }
        for n in CONTEXTS
    ]
    facts = {"parameters": spec.parameters, "parameter_bytes": 4 * spec.parameters}
    facts |= {"bandwidth": 10 * GB, "operations": 100 * GB, **metrics}
    params = {"contexts": ", ".join(map(str, CONTEXTS)), "batch": 1, "chunk": 1024, "steps": 4, "process": process}
    return make.record(make.cell("decode", spec, params, version=2), facts, {"points": points})


def ours(**more: Any) -> list[Record]:
    return [record("rwkv4-169m", 0.050, process=i, **more) for i in (1, 2, 3)]


def theirs(**more: Any) -> list[Record]:
    """Twice as fast at the shortest context, as fast at 2,048."""
    return [record("pythia-160m", 0.025, 0.025 / 2048, process=i, **more) for i in (1, 2, 3)]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([5, 5, 5], [1, 3, 7], (30, 30, 30)),
        ([1, 1, 1], [2, 2, 2], (-math.inf,) * 3),
        ([2, 2, 2], [1, 1, 1], (math.inf,) * 3),
        ([0, 2, 4], [1, 1, 7], (25, 25, 25)),  # below, above and below again: for good
    ],
)
def test_where_two_curves_cross(first: list[float], second: list[float], expected: tuple[float, ...]) -> None:
    one, other = ([Point(y, y, y) for y in curve] for curve in (first, second))
    assert tuple(crossing([10, 20, 40], one, other)) == pytest.approx(expected)


def test_the_interval_of_a_crossing_is_what_the_extremes_leave() -> None:
    flat = [Point(10, 8, 12)] * 2
    rising = [Point(0, 0, 0), Point(20, 20, 20)]
    assert crossing([0, 20], flat, rising) == (10, 8, 12)
    wide = [Point(10, 8, 22)] * 2
    assert crossing([0, 20], wide, rising) == (10, 8, math.inf)


def test_points_and_the_least_time_of_them() -> None:
    results = read([record("pythia-160m", 0.025, 0.0)])
    frame = results.frame("decode")
    step = frame[(frame.metric == "step_s") & (frame.tokens == 1024)].iloc[0]
    assert (step.value, step.low, step.high, step.repeats) == pytest.approx((0.025, 0.0245, 0.0255, 3))
    spec = models.find("pythia-160m")
    read_bytes = 4 * (spec.parameters - 50304 * 768)
    least = frame[(frame.metric == "bound_s") & (frame.tokens == 1024)].iloc[0].value
    assert least == pytest.approx((read_bytes + 12 * 2 * 768 * 4 * 1024) / (10 * GB)), "bytes, not operations"
    slow = read([record("pythia-160m", 0.025, operations=1 * GB)]).frame("decode")
    assert slow[slow.metric == "bound_s"].value.iloc[0] == pytest.approx(2 * read_bytes / 4 / GB), "operations"
    peak = frame[(frame.metric == "peak_bytes") & (frame.tokens == 16)].iloc[0].value
    assert peak == 4 * spec.parameters + spec.state_bytes(16) + (3 << 20)


def test_the_section_shows_the_crossing_that_is_there() -> None:
    (view,) = decode.views(read([*ours(), *theirs()]))
    assert view.printed is not None and view.printed == view.tables[0]
    line = view.printed.frame.set_index("time of").loc["a token"]
    assert (line["first"], line["second"], line["shortest"]) == ("RWKV-4 169M", "Pythia 160M", "16")
    assert line["ratio"] == "1.98 (1.91-2.07)" and line["ratio there"] == "0.67 (0.64-0.69)"
    assert line["ahead from"].startswith("2,000 (1,900 to 2,200)")
    token = view.pictures[0].panels[0].series
    assert [list(series.y) for series in token] == [[50.0] * 3, pytest.approx([25.195, 37.5, 75.0], rel=1e-4)]
    sentences = " ".join(of_page([view.comparisons])[0])
    assert (
        "RWKV-4 169M against Pythia 160M (up to 250 M), time of a token: ahead at 4,096 tokens of context: "
        "0.67 (0.64-0.69) x its time; behind at 16 tokens of context: 1.98 (1.91-2.07) x its time." in sentences
    )
    assert "processes: 3" in view.text[-1] and "three processes" not in sentences


def test_a_difference_inside_the_spread_is_none() -> None:
    (view,) = decode.views(read([*ours(spread=0.4), *theirs()]))
    assert "no difference shown at 4,096 tokens" in " ".join(of_page([view.comparisons])[0])


def test_one_process_is_said_to_be_one() -> None:
    (view,) = decode.views(read([ours()[0], theirs()[0]]))
    assert "Fewer than three processes" in " ".join(of_page([view.comparisons])[0])


def test_what_was_disturbed_is_compared_with_nothing() -> None:
    disturbed = [replace(one, status="disturbed", error="others used 1.3 of its 2 cores") for one in theirs()]
    for point in (point for one in disturbed for point in one.samples["points"]):
        point |= {"first_token_disturbed": [True], "step_disturbed": [True] * 3}
    (view,) = decode.views(read([*ours(), *disturbed]))
    assert [one.heading.rpartition(", ")[2] for one in view.comparisons] == ["bytes of cache or state"]
    assert view.printed is None and [table.name for table in view.tables] == ["decode"]
    cells = view.tables[0].frame.set_index("model")["ms a token"]
    assert all(text.endswith("†") for text in cells["Pythia 160M"]) and "†" not in "".join(cells["RWKV-4 169M"])


def test_repeats_that_were_disturbed_are_left_out_where_others_were_not() -> None:
    one, two, three = theirs()
    for point in one.samples["points"]:
        point["step_disturbed"] = [False, False, True]
    for point in two.samples["points"]:
        point["step_disturbed"] = [True] * 3
    frame = read([one, two, three]).frame("decode")
    step = frame[(frame.metric == "step_s") & (frame.tokens == 16)]
    assert list(step.repeats) == [2, 3, 3] and list(step.disturbed) == [False, True, False]
    both = pooled(frame)
    values = both[both.tokens == 16].set_index("metric")
    assert (values.repeats["step_s"], values.processes["step_s"]) == (5, 2), "of the second process none is left"
    assert not values.disturbed["step_s"]
    assert values.processes["first_token_s"] == 3, "which nothing disturbed"


def test_cells_of_other_contexts_are_one_curve_of_what_was_measured_last() -> None:
    long, short = record("pythia-160m", 0.05), altered(record("pythia-160m", 0.03), contexts="16")
    short.samples["points"] = short.samples["points"][:1]
    frame = pooled(read([long, measured_elsewhere(short, measured_at="2099-01-01T00:00:00+00:00")]).frame("decode"))
    steps = frame[frame.metric == "step_s"].set_index("tokens").value
    assert steps.to_dict() == pytest.approx({16: 0.03, 1024: 0.05, 4096: 0.05})


def test_a_curve_that_ends_says_why() -> None:
    (view,) = decode.views(read([record("opt-125m", 0.02, ended="2048 learned positions")]))
    assert "OPT 125M at 4,096 tokens (2048 learned positions)" in view.text[1]


def test_each_batch_and_type_has_its_section() -> None:
    one = record("rwkv4-169m", 0.05)
    several = [altered(one, dtype="bfloat16"), altered(one, batch=8), one]
    titles = [view.title.rpartition("cpu ")[2] for view in decode.views(read(several))]
    assert titles == ["float32, batch 1", "float32, batch 8", "bfloat16, batch 1"], "the plainest first"


def test_totals_are_the_first_token_and_the_steps_behind_it() -> None:
    rows = read([theirs()[0]]).frame("decode")
    assert totals.Curves(rows).total(16, 1) == pytest.approx(0.016)
    steps = sum(0.025 + 0.025 / 2048 * n for n in range(1024, 1024 + 99))
    assert totals.Curves(rows).total(1024, 100) == pytest.approx(1.024 + steps)
    (view,) = decode.views(read([*ours(), *theirs()]))
    panel = view.pictures[-1].panels[0]
    assert panel.ratios and panel.title == "RWKV-4 169M / Pythia 160M"  # type: ignore[union-attr]
    lowest = panel.percent[-1]  # type: ignore[union-attr]
    assert lowest[0] == pytest.approx(100 * (0.016 + 15 * 0.05) / totals.Curves(rows).total(16, 16))
    assert all(column[-1] for column in zip(*panel.percent, strict=True))  # type: ignore[union-attr]
    assert numbers.tick(max(rows.tokens)) not in panel.x_names, "no token is known behind the longest context"  # type: ignore[union-attr]
