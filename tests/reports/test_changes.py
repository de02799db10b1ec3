"""Two stores beside each other: what is matched, what is called worse or better, and what is compared with nothing."""

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reports import changes, compare, matching
from reports.changes import NO_DIFFERENCE, NOT_TESTED, Change
from reports.records.record import Record
from reports.records.store import Store
from reports.statistics.paired import TURNED
from reports.views.table import READINGS
from rwkv_core.errors import BadInput
from tests.make import altered, measured_elsewhere
from tests.reports.test_page import disturbed, record
from tests.reports.views import (
    test_capacity,
    test_decode,
    test_learning,
    test_lra,
    test_needles,
    test_precision,
    test_zeroshot,
)

MODEL = "rwkv4-169m"


def compared(first: Sequence[Record], second: Sequence[Record]) -> dict[str, Change]:
    """Of one pair of works, by metric."""
    found, _ = changes.of_pairs(matching.match(first, second).pairs, READINGS)
    assert len({change.metric for change in found}) == len(found)
    return {change.metric: change for change in found}


def stored(folder: Path, *records: Record) -> Path:
    for one in records:
        Store(folder).write(one)
    return folder


@pytest.fixture
def stores(tmp_path: Path) -> Callable[..., tuple[str, bool]]:
    """What is said of two lists of records in stores, and whether anything is worse."""

    def said(first: Sequence[Record], second: Sequence[Record], **options: Any) -> tuple[str, bool]:
        lines, worse = compare.stores(stored(tmp_path / "a", *first), stored(tmp_path / "b", *second), **options)
        return "\n".join(lines), worse

    return said


@pytest.mark.parametrize(
    ("factor", "verdict"),  # a side's repeats span a factor of 1.5, and a tenth is noise
    [(1.7, "slower"), (1.6, NO_DIFFERENCE), (1.0, NO_DIFFERENCE), (1 / 1.6, NO_DIFFERENCE), (1 / 1.7, "faster")],
)
def test_a_time_is_named_where_all_repeats_lie_beyond_the_noise(factor: float, verdict: str) -> None:
    found = compared([record(MODEL)], [record(MODEL, step=0.1 * factor)])
    for metric in ("first_token_s", "p50_s"):
        change = found[metric]
        assert change.verdict == verdict and change.note == changes.FEW
        assert (change.change, change.low, change.high) == pytest.approx((factor, factor / 1.5, factor * 1.5), rel=1e-4)
    assert found["parameter_bytes"].verdict == NO_DIFFERENCE and found["parameter_bytes"].note == ""


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.011, "larger"), (1.009, NO_DIFFERENCE), (0.991, NO_DIFFERENCE), (0.989, "smaller")]
)
def test_bytes_are_named_from_one_in_a_hundred_on_and_at_the_largest_context_alone(factor: float, verdict: str) -> None:
    before, after = record("opt-125m"), record("opt-125m")
    *shorter, longest = after.samples["memory"]
    longest["peak_live_bytes"] *= factor
    for point in shorter:
        point["peak_live_bytes"] *= 9
    peak = compared([before], [after])["peak_bytes at 79 tokens"]
    assert peak.verdict == verdict and peak.change == peak.low == peak.high == pytest.approx(factor)


def test_bytes_may_be_none() -> None:
    def raced(peak: int) -> Record:
        made = test_lra.raced({"s4": [1.0] * 3, "attention": [2.0] * 3}, {"s4": "S4D", "attention": "attention"}, 64)
        made.metrics["peak_bytes"]["s4"] = peak
        return made

    for before, after, verdict in ((0, 0, NO_DIFFERENCE), (0, 1, "larger"), (1, 0, "smaller")):
        assert compared([raced(before)], [raced(after)])["peak_bytes s4"].verdict == verdict


def test_contenders_are_compared_each_with_itself_and_what_one_side_lacks_is_counted() -> None:
    titles = {"s4": "S4D", "attention": "attention"}
    before = test_lra.raced({"s4": [1.0] * 3, "attention": [2.0] * 3}, titles, 64)
    after = test_lra.raced({"s4": [1.0] * 3, "attention": [3.0] * 3}, titles, 64)
    found = compared([before], [after])
    assert {metric: change.verdict for metric, change in found.items() if change.kind == "time"} == {
        "race_s s4": NO_DIFFERENCE,
        "race_s attention": "slower",
    }
    del after.samples["seconds"]["s4"]
    found, left_out = changes.of_pairs(matching.match([before], [after]).pairs, READINGS)
    assert "race_s s4" not in {change.metric for change in found}
    assert left_out == ({"values of race_s s4, which the other lacks": 1}, {})


def test_one_repeat_has_no_spread_and_so_no_verdict() -> None:
    before, after = record(MODEL), record(MODEL, step=0.2)
    del after.samples["token_seconds"][1:]
    change = compared([before], [after])["p50_s"]
    assert (change.verdict, change.note) == (NOT_TESTED, changes.ONE_REPEAT) and change.change == pytest.approx(20 / 11)
    pooled = [altered(after, process=1), altered(after, process=2)]
    assert compared([before], pooled)["p50_s"].verdict == "slower"


def test_what_ended_earlier_is_compared_at_the_last_context_of_both() -> None:
    before, after = test_decode.record(MODEL, 0.1, slope=1e-4), test_decode.record(MODEL, 0.2, slope=1e-4)
    gone = after.samples["points"].pop()["context_tokens"]
    last = after.samples["points"][-1]["context_tokens"]
    found, left_out = changes.of_pairs(matching.match([before], [after]).pairs, READINGS)
    verdicts = {change.metric: change.verdict for change in found}
    assert verdicts[f"step_s at {last} tokens"] == "slower"
    assert verdicts[f"first_token_s at {last} tokens"] == NOT_TESTED, "read once"
    assert left_out[0][f"values of step_s at {gone} tokens, which the other lacks"] == 1 and not left_out[1]


def turned(task: str, items: int, version: int = 1) -> tuple[Record, Record]:
    """A record, and the same with so many of its right items wrong."""
    before = test_zeroshot.record("pythia-160m", task, 0.5)
    after = altered(before, version=version)
    metric = test_zeroshot.zeroshot.tasks()[task]["metric"]
    for item in [item for item in after.samples["items"] if item[metric]][:items]:
        item[metric] = 0.0
    return before, after


def test_scores_are_tested_item_by_item_and_all_of_them_corrected_together() -> None:
    before, after = turned("piqa", 6)  # p 0.031
    change = compared([before], [after])["acc"]
    assert change.verdict == "worse" and change.p == pytest.approx(2 / 64) and change.change == pytest.approx(-0.06)
    assert compared([after], [before])["acc"].verdict == "better"
    same, again = turned("copa", 0)
    found, _ = changes.of_pairs(matching.match([before, same], [after, again]).pairs, READINGS)
    assert [(change.verdict, change.p) for change in found] == [
        (NO_DIFFERENCE, pytest.approx(4 / 64)),
        (NO_DIFFERENCE, 1),
    ]
    other, _ = turned("piqa", 0)
    other.metrics["data_fingerprint"] = "other"
    assert compared([before], [other])["acc"].verdict == NOT_TESTED


def test_a_test_that_says_nothing_of_the_mean_gives_no_verdict() -> None:
    before, after = turned("piqa", 0)
    for made, item_of_ten, item_of_another in ((before, 1.0, 0.0), (after, 0.0, 1.0)):
        made.samples["items"][:] = [
            {"doc": i, "question": min(i, 10), "acc": item_of_ten if i < 10 else item_of_another} for i in range(100)
        ]
    change = compared([before], [after])["acc"]
    assert (change.verdict, change.note) == (NO_DIFFERENCE, TURNED) and change.p and change.p < 0.05


def test_of_a_curve_the_last_point_is_compared_and_of_a_score_the_whole() -> None:
    def needle(*shares: float) -> Record:
        return test_needles.record("pocket-rwkv4", 64, list(zip((0.0, 0.5, 1.0), shares, strict=True)))

    found = compared([needle(1.0, 0.0, 0.0)], [needle(1.0, 0.0, 1.0)])
    assert found["needle"].change == pytest.approx(1 / 3) and found["state_bytes"].verdict == NO_DIFFERENCE

    def extended(last: float) -> Record:
        stages = [{"window": 2, "tokens": 9, **test_learning.curve(loss)} for loss in (5.0, last)]
        samples = {"stages": stages, "levels": {}}
        metrics = {"documents": 3, "documents_fingerprint": "same", "tokens": 9, "train_s": 1.0}
        return test_learning.record("extend", "pocket-rwkv4", metrics, samples, schedule="pocket")

    (loss,) = compared([extended(4.0)], [extended(3.0)]).values()
    assert (loss.metric, loss.change) == ("context_loss at 8 tokens", -1.0)


def test_other_scores_have_no_verdict(stores: Callable[..., tuple[str, bool]]) -> None:
    before, after = (test_lra.trained("listops", "rwkv4", "RWKV-4", "RWKV", accuracy) for accuracy in (0.5, 0.1))
    said, worse = stores([before], [after], every=True)
    assert re.search(r"not tested +lra .*mixer=rwkv4.* lra +0\.5 +0\.1 +-0\.4", said) and not worse
    assert "1 values compared: 0 worse, 0 better, 0 no difference shown, 1 not tested (1 of them differ)" in said


def test_processes_of_the_same_work_are_pooled() -> None:
    def several(*steps: float) -> list[Record]:
        return [altered(record(MODEL, step=step), process=i) for i, step in enumerate(steps, 1)]

    before, after = several(0.1, 0.1, 0.1), several(0.2, 0.2, 0.2)
    change = compared(before, after)["p50_s"]
    assert (change.verdict, change.note) == ("slower", "")
    assert change.first and (change.first.value, change.first.high, change.first.processes) == pytest.approx(
        (0.11, 0.15, 3)
    )
    (peak,) = (one for metric, one in compared(before, after).items() if metric.startswith("peak_bytes"))
    assert peak.verdict == NO_DIFFERENCE and peak.note == ""
    assert compared(before, several(0.2, 0.1, 0.2))["p50_s"].verdict == NO_DIFFERENCE, "the fastest process decides"
    assert compared(before, after[:2])["p50_s"].note == changes.FEW
    assert compared([record(MODEL)], before)["p50_s"].second == change.first, "an older cell has no process"


def test_what_was_disturbed_is_compared_with_nothing_and_counted(stores: Callable[..., tuple[str, bool]]) -> None:
    calm, loud = record(MODEL), disturbed(MODEL, step=9.0)
    said, worse = stores([calm, record("opt-125m")], [loud, record("opt-125m")])
    assert not worse and "B, not compared: 1 disturbed." in said and "A, not compared" not in said
    assert "2 cells matched, 5 values compared: 0 worse" in said
    of_processes = [altered(calm, process=1), altered(loud, process=2)]
    pooled = compared([calm], of_processes)["p50_s"]
    assert pooled.verdict == NO_DIFFERENCE and pooled.first == pooled.second
    with pytest.raises(BadInput, match=r"nothing in common that can be compared: .*b has inference \(1 disturbed\)$"):
        stores([calm], [loud], only=MODEL)


def failed(model: str) -> Record:
    return record(model, status="failed", metrics={}, samples={}, error="broke")


def test_a_cell_that_has_no_number_any_more_is_worse(stores: Callable[..., tuple[str, bool]]) -> None:
    said, worse = stores([record(MODEL), failed("bloom-560m")], [failed(MODEL), failed("bloom-560m")])
    assert re.search(r"worse +inference rwkv4-169m random:0 cpu .* status +failed in B: broke", said) and worse
    assert "A, not compared: 1 failed." in said and "B, not compared: 2 failed." in said
    (change,) = compared([failed(MODEL)], [record(MODEL)]).values()
    assert (change.verdict, change.note) == ("better", "failed in A: broke")
    assert not compared([failed(MODEL)], [disturbed(MODEL)])


def test_versions_are_compared_with_each_other_and_said(stores: Callable[..., tuple[str, bool]]) -> None:
    before, after = record(MODEL), altered(record(MODEL, step=0.2), version=3)
    said, worse = stores([before], [after])
    assert worse and "differ in version of inference 2 (A), 3 (B)." in said
    newer = altered(after, warmup_tokens=8)  # a parameter that came later, at its default
    newer = replace(newer, cell=replace(newer.cell, differing=after.cell.differing))
    assert compared([before], [newer])["p50_s"].verdict == "slower"
    assert not matching.match([before], [altered(newer, warmup_tokens=9)]).pairs
    both = matching.match([before], [altered(after, process=2), altered(before, process=1)])
    assert [one.cell.version for one in both.pairs[0].second] == [3] and sum(both.alone[1].values()) == 1
    said, _ = stores([altered(record("opt-125m"), version=1)], [record("opt-125m")])
    assert "A, not compared: 1 of a version that is not read any more." in said


def test_machines_that_both_have_are_compared_with_themselves(stores: Callable[..., tuple[str, bool]]) -> None:
    def on(machine: str, day: int = 1) -> Record:
        return measured_elsewhere(record(MODEL), machine=machine, measured_at=f"2026-01-0{day}T00:00:00+00:00")

    def matched(first: Sequence[Record], second: Sequence[Record]) -> list[tuple[str, str]]:
        return [(pair.first[0].machine, pair.second[0].machine) for pair in matching.match(first, second).pairs]

    assert matched([on("X"), on("Y")], [on("Y"), on("Z")]) == [("Y", "Y")]
    assert matched([on("X", 2), on("Y", 3), on("W")], [on("Z")]) == [("Y", "Z")]
    said, _ = stores([on("X")], [measured_elsewhere(on("Y"), commit="1" * 40, versions={"torch": "2.14.0"})])
    assert (
        f"differ in commit {'0' * 12} (A), {'1' * 12} (B); machine X (A), Y (B); torch 2.13.0 (A), 2.14.0 (B)." in said
    )


def test_what_has_no_partner_is_counted_with_the_reason(stores: Callable[..., tuple[str, bool]]) -> None:
    more = [altered(record(MODEL), batch=2), record(MODEL, tokens=65)]
    mine = [record(MODEL), record("opt-125m", "paper")]
    said, worse = stores(mine, [*mine, *more, *turned("piqa", 0)[:1]])
    assert not worse and "A and B differ in nothing. Both: commit 000000000000; machine Test CPU" in said
    assert "1 inference that differ from the nearest in batch" in said
    assert "1 inference that differ from the nearest in new_tokens" in said
    assert "1 zeroshot, which the other has not" in said and "A, not compared" not in said
    many = [altered(record(MODEL), **{name: 1}) for name in ("a", "b", "c", "d", "e", "f")]
    said, _ = stores([], many)
    assert "; 9 in all." in said and said.count("differ from the nearest") < 6


def test_nothing_in_common_is_one_line(stores: Callable[..., tuple[str, bool]]) -> None:
    with pytest.raises(BadInput) as raised:
        stores([record(MODEL)], turned("piqa", 0)[:1])
    assert "\n" not in str(raised.value)
    assert re.search(
        r"/a has inference \(1 inference, .*/b has zeroshot \(1 zeroshot, which the other", str(raised.value)
    )
    with pytest.raises(BadInput, match=r"a has no cell with bloom; .*b has no cell with bloom"):
        stores([], [], only="bloom")


def test_worse_stands_before_better_and_all_of_it_in_the_file(
    stores: Callable[..., tuple[str, bool]], tmp_path: Path
) -> None:
    after = [record("opt-125m", step=0.01), record(MODEL, step=1.0), record("pythia-160m")]
    before = [record(one.cell.model.name) for one in after if one.cell.model]
    said, worse = stores(before, after, out=tmp_path / "new" / "all.csv")
    assert worse and [line.split()[0] for line in said.splitlines()[2:7]] == [
        "verdict",
        *["slower"] * 2,
        *["faster"] * 2,
    ]
    assert "pythia-160m" not in said and "Fewer than 3 processes: times of the same work" in said
    assert "15 values compared: 2 worse, 2 better, 11 no difference shown, 0 not tested" in said
    every, _ = stores([], [], every=True)
    assert every.count("no difference shown") == 12 and "110 (100-150) ms" in every and "10.00 (6.67-15.00)" in every
    lines = list(csv.DictReader((tmp_path / "new" / "all.csv").open(encoding="utf-8")))
    assert len(lines) == 15 and {line["note"] for line in lines} == {"", changes.FEW}
    (slower,) = (line for line in lines if line["metric"] == "p50_s" and line["verdict"] == "slower")
    assert [float(slower[key]) for key in ("A value", "B high", "change", "low")] == pytest.approx(
        [0.11, 1.5, 10, 20 / 3]
    )
    chosen, _ = stores([], [], only="pythia")
    assert "1 cells matched, 5 values compared" in chosen


def test_what_is_compared_is_among_the_rows() -> None:
    """So that no metric is renamed and silently compared no more."""
    gallery = Path(__file__).resolve().parents[2] / "reports" / "gallery"
    records = [test_decode.record(MODEL, 0.1), test_precision.record("bfloat16", [0.1, 0.2], [1, 1], [2.0, 2.5])]
    records += [test_zeroshot.record(MODEL, "triviaqa", 0.5), test_capacity.record(MODEL, 40, 44)]
    records += [one for folder in gallery.iterdir() for one in Store(folder / "records").read(items=True)[0]]
    missing = {name: set(reading.compared) for name, reading in READINGS.items()}
    for one in records:
        if missing[one.cell.experiment]:
            missing[one.cell.experiment] -= {row["metric"] for row in READINGS[one.cell.experiment].rows(one)}
    assert not any(missing.values()), missing
