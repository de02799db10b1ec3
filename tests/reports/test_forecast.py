"""What was not measured, from what was: times and memory that are known beforehand, and what is said of them."""

import math
import statistics
from typing import Any

import pandas as pd
import pytest

from bench import documents
from reports import advice, page
from reports.advice import Question
from reports.draw.table import Table
from reports.forecast import Forecast
from reports.views.processes import pooled
from reports.views.table import read
from tests.make import altered
from tests.reports.views.test_decode import record

GB = 1e9


def frame(*records: Any) -> pd.DataFrame:
    return read(records).frame("decode").assign(processes=1)


def batches(name: str, weights: float, each: float, cache: float, of: tuple[int, ...] = (1, 8)) -> pd.DataFrame:
    """Steps of weights + each * batch + cache * batch * tokens."""
    made = [altered(record(name, weights + each * b, cache * b), batch=b) for b in of]
    for one, batch in zip(made, of, strict=True):
        for point in one.samples["points"]:
            point["state_bytes"] *= batch
            point["chunk_bytes"] *= batch
    return frame(*made)


def test_inside_what_was_measured_it_is_the_line_between_the_points() -> None:
    known = Forecast(frame(record("pythia-160m", 0.02, 1e-5)))
    estimate = known.step(2048, 1)
    assert estimate.value == pytest.approx(0.02 + 2048e-5) and not estimate.extrapolated
    assert (estimate.low, estimate.high) == pytest.approx((0.98 * estimate.value, 1.02 * estimate.value))
    assert known.first_token(2048, 1).value == pytest.approx(2.048)


@pytest.mark.parametrize(("context", "batch"), [(32768, 1), (32768, 8), (1024, 4), (2048, 64)])
def test_beyond_it_each_part_grows_as_it_must(context: int, batch: int) -> None:
    known = Forecast(batches("pythia-160m", 0.02, 0.003, 1e-6))
    estimate = known.step(context, batch)
    assert estimate.value == pytest.approx(0.02 + 0.003 * batch + 1e-6 * batch * context, rel=1e-6)
    assert estimate.low <= estimate.value * 1.0001 and estimate.value <= estimate.high * 1.0001
    assert ("contexts of 16 to 4,096" in estimate.extrapolated) == (context > 4096)
    assert ("batches of 1, 8" in estimate.extrapolated) == (batch not in (1, 8))


def test_an_interval_holds_what_the_fit_misses() -> None:
    rows = batches("pythia-160m", 0.02, 0.003, 1e-6)
    steps = (rows.metric == "step_s") & (rows.tokens == 1024)
    rows.loc[steps, "value"] *= 1.5
    estimate = Forecast(rows).step(32768, 8)
    assert estimate.high > 1.1 * estimate.value, "it is below what was measured at 1,024 tokens"
    assert estimate.low < 0.98 * estimate.value, "and above it elsewhere"


def test_another_batch_than_the_only_one_lies_between_one_pass_and_one_after_another() -> None:
    estimate = Forecast(frame(record("rwkv4-169m", 0.05))).step(1024, 16)
    assert (estimate.low, estimate.high) == pytest.approx((0.049, 0.051 * 16)) and estimate.extrapolated
    assert estimate.low < estimate.value < estimate.high


def test_no_part_of_a_time_is_below_zero() -> None:
    falling = frame(record("rwkv4-169m", 0.05, -1e-6))
    assert Forecast(falling).step(10**6, 1).value > 0


def test_memory_is_weights_caches_and_what_is_worked_with() -> None:
    for batch in (1, 8):
        known = Forecast(batches("pythia-160m", 0.02, 0.003, 1e-6))
        spec = record("pythia-160m", 0.1).cell.model
        assert spec is not None
        expected = 4 * spec.parameters + spec.state_bytes(32768, batch=batch) + batch * (3 << 20)
        assert known.memory(32768, batch) == pytest.approx(expected)
    longest = known.longest(8 * GB, 1)
    assert known.memory(int(longest), 1) <= 8 * GB < known.memory(int(longest) + 1, 1)
    largest = known.largest_batch(16 * GB, 8192)
    assert known.memory(8192, int(largest)) <= 16 * GB < known.memory(8192, int(largest) + 1)
    ours = Forecast(frame(record("rwkv4-169m", 0.05)))
    assert ours.longest(8 * GB, 1) == math.inf and ours.longest(0.1 * GB, 1) == 0


def test_a_chunk_takes_no_more_in_a_context_beyond_it() -> None:
    short = record("rwkv4-169m", 0.05)
    del short.samples["points"][2:]
    for point in short.samples["points"]:
        point["chunk_bytes"] = point["context_tokens"] << 20
    spec = short.cell.model
    assert spec is not None and short.samples["points"][-1]["context_tokens"] <= short.cell.params["chunk"]
    known = Forecast(frame(short))
    assert known.memory(10**6, 1) == pytest.approx(4 * spec.parameters + spec.state_bytes(10**6) + (1024 << 20))
    assert known.longest(8 * GB, 1) == math.inf and known.longest(1.5 * GB, 1) < 1024


def test_caches_of_a_long_context_count_in_a_batch_that_was_measured_in_a_short_one() -> None:
    alone, many = record("pythia-160m", 0.02), altered(record("pythia-160m", 0.05), batch=32)
    del many.samples["points"][1:]
    for point in many.samples["points"]:
        point["state_bytes"] *= 32
        point["chunk_bytes"] *= 32
    spec = alone.cell.model
    assert spec is not None
    expected = 4 * spec.parameters + spec.state_bytes(32768, batch=40) + 40 * (3 << 20)
    assert Forecast(frame(alone, many)).memory(32768, 40) == pytest.approx(expected)


def answered(question: Question, rows: pd.DataFrame, **quality: str) -> tuple[pd.DataFrame, list[str]]:
    shown, *sentences = advice.answer(rows, question, quality)
    assert isinstance(shown, Table) and all(isinstance(one, str) for one in sentences)
    return shown.frame.set_index("model"), [str(one) for one in sentences]


RWKV, PYTHIA, OPT = "RWKV-4 169M", "Pythia 160M", "OPT 125M"


def three() -> pd.DataFrame:
    """RWKV-4 is faster than Pythia from 2,048 tokens on."""
    return frame(record("rwkv4-169m", 0.05), record("pythia-160m", 0.025, 0.025 / 2048), record("opt-125m", 0.02))


def test_the_fastest_that_fits_comes_first() -> None:
    table, sentences = answered(Question(1024, 1, 16 * GB), three(), **{PYTHIA: "45 %"})
    assert list(table.index) == [OPT, PYTHIA, RWKV] and list(table.fits) == ["yes"] * 3
    assert table["ms a token"][RWKV] == "50 (49-51)" and table["tokens/s"][RWKV] == "20.0"
    assert table["12 tasks"][PYTHIA] == "45 %" and set(table.measured) == {"here"}
    (against,) = (one for one in sentences if "than Pythia" in one)
    assert against.startswith("RWKV-4 169M takes less time a token than Pythia 160M (float32, batch 1) from")
    assert "2,000 (" in against and "reckoned" not in against


def test_what_does_not_fit_says_why() -> None:
    table, sentences = answered(Question(16384, 1, 1 * GB), three())
    assert table.fits[OPT] == "has 2,048 positions" and table.fits[PYTHIA].startswith("needs 1.9 GB")
    assert table.fits[RWKV] == "yes" and not sentences
    assert table["ms a token"][RWKV].startswith("~") and "contexts of 16 to 4,096" in table.measured[RWKV]


def test_beyond_the_measured_contexts_the_sentence_says_so() -> None:
    _, sentences = answered(Question(16384, 1, 16 * GB), three())
    assert all("beyond 4,096 tokens reckoned" in one for one in sentences) and len(sentences) == 1


def test_far_beyond_the_measured_contexts_nothing_is_reckoned() -> None:
    table, sentences = answered(Question(4 * 4096 + 1, 1, 16 * GB), three())
    assert list(table.fits[[RWKV, PYTHIA]]) == ["measured to 4,096 tokens"] * 2 and not sentences
    assert "ms a token" not in table


def test_what_was_left_out_of_real_records_is_reckoned() -> None:
    """Of each model in the gallery every context but the shortest is left out in turn, so that it lies between others
    or beyond them, and reckoned from the rest: half of what is said is at most a tenth off.
    """
    stores = [folder / "records" for folder in sorted((documents.ROOT / "reports" / "gallery").iterdir())]
    frame = pooled(read(page.read(stores)[0]).frame("decode"))
    frame = frame[~frame.disturbed & frame.at_best]
    inside, beyond = [], []
    for _, rows in frame.groupby(["machine", "label", "dtype", "weights"]):
        for at in sorted(rows.tokens.dropna().unique())[1:]:
            rest = rows[rows.tokens != at]
            for batch in sorted({*rest[rest.metric == "step_s"].batch} & {*rows[rows.tokens == at].batch}):
                left_out = rows[(rows.tokens == at) & (rows.batch == batch)].set_index("metric").value
                known = Forecast(rest)
                for metric, reckoned in (("step_s", known.step), ("first_token_s", known.first_token)):
                    if metric in left_out and len(rest[(rest.metric == metric) & (rest.batch == batch)]) > 1:
                        off = abs(reckoned(int(at), int(batch)).value / left_out[metric] - 1)
                        (inside if at < rows.tokens.max() else beyond).append(off)
    assert len(inside) > 20 and statistics.median(inside) <= 0.1
    assert len(beyond) > 5 and statistics.median(inside + beyond) <= 0.1
