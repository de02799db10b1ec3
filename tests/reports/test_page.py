"""Records -> rows -> page: statistics from raw samples, escaping, every form of every table."""

import csv
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from reports import page
from reports.draw.figure import Panel
from reports.draw.table import Table
from reports.published import paper
from reports.records.record import Record, Status
from reports.records.store import Store
from reports.sentences import of_page
from reports.statistics import bands
from reports.views import curves, encoders, inference, sources, summary
from reports.views.processes import pooled
from reports.views.table import read
from rwkv_core import models
from rwkv_core.errors import BadInput
from tests import make
from tests.make import PROVENANCE, altered, measured_elsewhere
from tests.reports.views import test_lra


def record(name: str, protocol: str = "fair", step: float = 0.1, tokens: int = 64, **changes: Any) -> Record:
    spec = models.find(name, weights="random:0")
    params = {"protocol": protocol, "batch": 1, "prompt_tokens": 16, "new_tokens": tokens}
    runs = [[round(step * factor * (i + 1), 6) for i in range(tokens)] for factor in (1.0, 1.5, 1.1)]
    carries = protocol == "fair" or spec.family == "rwkv4"
    memory = []
    for context in (16, 32, 64, tokens + 15):
        used = spec.state_bytes(context)
        state = {"state_bytes": used, "state_held_bytes": 2 * used} if carries else {}
        memory.append(
            {"context_tokens": context, "peak_live_bytes": 10**6, "resident_growth_bytes": 2 * 10**6, **state}
        )
    metrics = {
        "parameters": spec.parameters,
        "parameter_bytes": 4 * spec.parameters,
        **{k: v for k, v in memory[-1].items() if k != "context_tokens"},
        **({"disagreement": 1e-6} if carries else {}),
    }
    samples = {"token_seconds": runs, "memory": memory}
    return replace(make.record(make.cell("inference", spec, params, version=2), metrics, samples), **changes)


def short(records: list[Record]) -> Table:
    (view,) = summary.views(read(records))
    assert view.tables == [view.printed]
    return view.tables[0]


@pytest.fixture
def records() -> list[Record]:
    made = [
        record(name, protocol) for name in ("rwkv4-169m", "pythia-160m", "opt-125m") for protocol in ("fair", "paper")
    ]
    failed = record("bloom-560m", status="failed", metrics={}, samples={}, error="<b>broke</b>")
    oom = record("bloom-560m", "paper", status="oom", metrics={}, samples={}, error="no memory")
    return [*made, failed, oom]


def test_statistics_are_derived_from_the_samples(records: list[Record]) -> None:
    frame = pd.DataFrame(read(records[:1]).rows)
    at = frame[(frame.metric == "cumulative_s") & (frame.tokens == 10)].iloc[0]
    assert (at.value, at.low, at.high, at.repeats) == pytest.approx((1.1, 1.0, 1.5, 3))
    p50 = frame[frame.metric == "p50_s"].iloc[0]
    assert (p50.value, p50.low, p50.high) == pytest.approx((0.11, 0.1, 0.15))
    assert frame[frame.metric == "first_token_s"].iloc[0].value == pytest.approx(0.11)
    assert frame[frame.metric == "tokens_per_s"].iloc[0].value == pytest.approx(1 / 0.11)


def test_what_a_model_was_measured_with_stands_behind_its_name() -> None:
    plain = record("pythia-160m")
    chosen = altered(record("pythia-160m", step=0.2), cache="dynamic")
    fallen_back = measured_elsewhere(record("opt-125m"), cache="dynamic")
    made = read([record("rwkv4-169m"), plain, chosen, fallen_back]).rows
    labels = ["RWKV-4 169M", "Pythia 160M", "Pythia 160M (DynamicCache)", "OPT 125M (DynamicCache)"]
    assert list(dict.fromkeys(row["label"] for row in made)) == labels
    items = {one.item for one in inference.comparisons(pooled(pd.DataFrame(made)))}
    assert items == {"Pythia 160M", "OPT 125M (DynamicCache)"}
    frame = pd.DataFrame(made)
    points = curves.against_parameters(frame, pd.DataFrame(paper.generation_rows()).head(0), "x", "", "time").panels[0]
    assert isinstance(points, Panel)
    assert [s.label for s in points.series] == ["RWKV-4", "Pythia", "Pythia (DynamicCache)", "OPT (DynamicCache)"]


def test_families_that_have_eager_attention_alone_are_named_below_their_tables() -> None:
    def made(name: str, attention: str) -> Record:
        return measured_elsewhere(record(name), attention=attention)

    others = [made("rwkv4-169m", "wkv4:c"), made("pythia-160m", "sdpa")]
    chosen = altered(made("opt-125m", "eager"), attention="eager")
    neo, bloom = made("gpt-neo-125m", "eager"), made("bloom-560m", "eager")
    for records, note in (
        ([*others, chosen], ""),
        ([*others, chosen, neo], " GPT-Neo: eager attention, since transformers has no sdpa for it."),
        ([*others, neo, bloom], " BLOOM and GPT-Neo: eager attention, since transformers has no sdpa for them."),
    ):
        (view,) = inference.views(read(records))
        for table in (*view.tables, short(records)):
            assert note in table.note and table.note.count("eager") == bool(note), table.name


def test_bytes_held_stand_beside_bytes_used_and_records_without_them_are_outdated() -> None:
    made = record("pythia-160m")
    (view,) = inference.views(read([made]))
    line = view.tables[1].frame.iloc[0]
    assert (line["cache or state"], line["held for it"]) == ("5.55 MiB", "11.11 MiB")
    old = read([altered(made, version=1)]).rows
    assert [row["status"] for row in old] == ["outdated"]


def test_published_rows_have_the_same_form(records: list[Record]) -> None:
    published = pd.DataFrame(paper.generation_rows())
    measured = pd.DataFrame(read(records).rows)
    assert set(published) - {"figure"} <= set(measured)
    at = published[(published.label == "OPT 2.7B") & (published.tokens == 1000)]
    assert at.value.item() == 54.30 and at.protocol.item() == "paper"
    assert all(published.source.str.contains("2305.13048v1 Fig"))


def test_the_page_holds_everything_and_escapes_it(records: list[Record], tmp_path: Path) -> None:
    store, out = tmp_path / "store", tmp_path / "out"
    for one in records:
        Store(store).write(one)
    lines = list(page.write([store], out))
    assert lines[-1] == f"page: {out / 'index.html'}"
    html = (out / "index.html").read_text()
    assert "<b>broke</b>" not in html and "&lt;b&gt;broke" in html
    assert "Transformers ran without a cache" in html and "random weights" in html
    assert not re.search(r'(src|href)="(https?:)?//', html)
    for link in re.findall(r'href="((?:tables|figures)/[^"]+|rows\.csv)"', html):
        assert (out / link).stat().st_size > 100
    pictures = {p.stem for p in (out / "figures").glob("*.png")}
    for name in ("cumulative", "time-against-parameters", "memory-against-parameters"):
        assert {f"{name}-fair", f"{name}-paper"} <= pictures
    assert "state-fair" in pictures and pictures == {p.stem for p in (out / "figures").glob("*.svg")}
    assert "\\toprule" in (out / "tables" / "architectures.tex").read_text()
    not_measured = list(csv.DictReader(io.StringIO((out / "tables" / "not-measured.csv").read_text())))
    assert [(line["status"], line["why"]) for line in not_measured] == [
        ("failed", "<b>broke</b>"),
        ("oom", "no memory"),
    ]


def test_the_sentence_is_the_same_whoever_wins(records: list[Record]) -> None:
    for ours, theirs, words in (
        (0.1, 0.2, "faster than"),
        (0.2, 0.1, "slower than"),
        (0.1, 0.1, "no difference shown"),
    ):
        (view,) = inference.views(read([record("rwkv4-169m", step=ours), record("opt-125m", step=theirs)]))
        ((time, held),) = of_page([view.comparisons])
        assert f"RWKV-4 169M (up to 250 M), time of 64 tokens: {words}" in time and "OPT 125M" in time
        assert "cache or state at 79 tokens: smaller than OPT 125M" in held and "Fewer than three processes" in time


def test_a_fixed_length_is_the_longest_that_all_have() -> None:
    frame = pd.DataFrame(read([record("rwkv4-169m", tokens=100), record("opt-125m", tokens=70)]).rows)
    assert curves.common_tokens(frame, "cumulative_s") == 70 and curves.common_tokens(frame, "peak_bytes") == 64


def test_the_longest_cell_of_a_model_is_shown() -> None:
    made = [record("rwkv4-169m", tokens=64, step=9.0), record("rwkv4-169m", tokens=128), record("opt-125m", tokens=64)]
    table = short(made)
    shown = dict(zip(table.frame.model, table.frame["ms a token"], strict=True))
    assert shown["RWKV-4 169M"].startswith("110.0") and len(table.frame) == 2


def test_machines_and_types_are_never_mixed() -> None:
    slow = record("opt-125m", step=0.2)
    fast = measured_elsewhere(record("opt-125m", step=0.001), machine="Other")
    assert list(short([slow, fast]).frame.machine) == [PROVENANCE["machine"], "Other"]
    assert len({view.name for view in inference.views(read([slow, fast]))}) == 2


@pytest.mark.parametrize("protocol,status", [("paper", "ok"), ("fair", "ok"), ("fair", "failed")])
def test_a_page_of_little_is_a_page(tmp_path: Path, protocol: str, status: str) -> None:
    lacking = {} if status == "ok" else {"status": status, "metrics": {}, "samples": {}, "error": "broke"}
    Store(tmp_path / "s").write(record("opt-125m", protocol, **lacking))
    assert list(page.write([tmp_path / "s"], tmp_path / "out"))
    assert (tmp_path / "out" / "index.html").is_file()


def test_the_same_cell_in_two_stores(tmp_path: Path) -> None:
    failed = record("opt-125m", status="failed", metrics={}, samples={}, error="broke")
    elsewhere = measured_elsewhere(record("opt-125m"), machine="Other")
    for name, one in (("a", record("opt-125m")), ("b", failed), ("c", elsewhere)):
        Store(tmp_path / name).write(one)
    lines = list(page.write([tmp_path / name for name in "abc"], tmp_path / "out"))
    assert "in several stores" in lines[0]
    assert "2 cells measured, 0 without" in (tmp_path / "out" / "index.html").read_text()


def test_a_store_of_damaged_records_alone_says_so(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text("{")
    with pytest.raises(BadInput, match=r"no whole record among 1, the first: .*one\.json: damaged record .*run"):
        list(page.write([tmp_path], tmp_path / "out"))


def test_tables_escape_their_markup() -> None:
    table = Table("t", "A_title", pd.DataFrame([{"a|b": "x|y_z & <i>"}]), "50 %")
    assert "x\\|y_z" in table.markdown() and "&lt;i&gt;" in table.html()
    assert r"x|y\_z \& <i>" in table.latex() and r"A\_title" in table.latex() and r"50 \%" in table.latex()


def test_computed_architectures_stand_beside_the_published(records: list[Record]) -> None:
    frame = sources.architectures().tables[0].frame
    assert frame.parameters[0] == "169,342,464" and frame.published[0] == "1.693e8"
    assert [f"{float(a):.2e}" for a in frame["FLOPs a token"]] == [f"{float(a):.2e}" for a in frame["published FLOPs"]]


def disturbed(name: str, **changes: Any) -> Record:
    return record(name, status="disturbed", error="3 of 3 intervals: others used 1.3 of its 2 cores", **changes)


def test_a_disturbed_record_is_shown_and_compared_with_nothing(tmp_path: Path) -> None:
    made = [record("rwkv4-169m", step=0.2), disturbed("pythia-160m", step=9.0), record("opt-125m", step=0.1)]
    assert {row["label"] for row in read(made).rows if row["disturbed"]} == {"Pythia 160M"}
    table = short(made)
    assert "† Something else took the machine" in table.note
    shown = table.frame.set_index("model")
    assert shown["ms a token"]["Pythia 160M"] == "9900.0 (9000.0-13500.0)†"
    assert shown["first token, ms"]["Pythia 160M"].endswith("†")
    assert not shown.loc[["RWKV-4 169M", "OPT 125M"]].astype(str).agg(" ".join, axis=1).str.contains("†").any()
    assert "†" not in shown["cache or state"]["Pythia 160M"]  # memory is not timed
    (view,) = inference.views(read(made))
    assert {one.item for one in view.comparisons} == {"OPT 125M"}
    assert view.text[0] == "Not compared, since its measurement was disturbed: Pythia 160M."
    speed = view.tables[0].frame.set_index("model").loc["Pythia 160M"]
    assert all(speed[column].endswith("†") for column in ("p50, ms", "p99, ms", "tokens/s", "weights read, GB/s"))
    lines = {series.label: series for series in view.pictures[0].panels[0].series}
    assert lines["Pythia 160M (disturbed)"].dashed and lines["Pythia 160M (disturbed)"].hollow
    assert not lines["RWKV-4 169M"].dashed
    against = {picture.name: picture for picture in view.pictures}["time-against-parameters-fair"].panels[0]
    assert {series.label: series.crossed for series in against.series} == {
        "RWKV-4": [False],
        "Pythia": [True],
        "OPT": [False],
    }
    for one in made:
        Store(tmp_path / "s").write(one)
    assert any("†" in line for line in page.write([tmp_path / "s"], tmp_path / "out"))
    html = (tmp_path / "out" / "index.html").read_text()
    assert "3 cells measured (1 of them disturbed, marked †), 0 without a number" in html
    assert "0 of 3 timed cells were watched for disturbances; 3 without everything" in html
    (line,) = csv.DictReader(io.StringIO((tmp_path / "out" / "tables" / "disturbed.csv").read_text()))
    assert line["model"] == "Pythia 160M" and line["why"].startswith("3 of 3 intervals")
    assert not (tmp_path / "out" / "tables" / "not-measured.csv").exists()


def test_where_the_best_was_disturbed_no_variant_stands_for_it() -> None:
    best = record("pythia-160m")
    variant = altered(record("pythia-160m", step=9.0), cache="dynamic")
    for pythia, compared in ((best, True), (disturbed("pythia-160m"), False)):
        (view,) = inference.views(read([record("rwkv4-169m"), pythia, variant]))
        assert {one.item for one in view.comparisons} == ({"Pythia 160M"} if compared else set())


def test_where_all_was_disturbed_nothing_is_said() -> None:
    (view,) = inference.views(read([disturbed("rwkv4-169m"), disturbed("opt-125m")]))
    assert not view.comparisons
    assert view.text[0] == "Not compared, since its measurement was disturbed: RWKV-4 169M, OPT 125M."


def test_processes_of_the_same_work_are_one_line_and_a_difference_must_lie_outside_all_of_them() -> None:
    def processes(name: str, *steps: float) -> list[Record]:
        made = [record(name, step=step) for step in steps]
        return [altered(one, process=i) for i, one in enumerate(made, 1)]

    ours = processes("rwkv4-169m", 0.1, 0.12, 0.11)
    for theirs, words in (((0.2, 0.21, 0.22), "faster than"), ((0.2, 0.21, 0.14), "no difference shown from")):
        results = read([*ours, *processes("opt-125m", *theirs)])
        shown = short(results.records).frame.set_index("model")["ms a token"]
        assert shown["RWKV-4 169M"] == "121.0 (100.0-180.0)" and len(shown) == 2
        (view,) = inference.views(results)
        ((time, _),) = of_page([view.comparisons])
        assert f"64 tokens: {words} OPT 125M" in time and "median of 9 runs" in view.text[-1]
    calm, loud = processes("opt-125m", 0.2, 0.3)
    table = short([calm, replace(loud, status="disturbed")])
    assert list(table.frame["ms a token"]) == ["220.0 (200.0-300.0)"]


def test_an_undisturbed_record_goes_before_a_disturbed_one(tmp_path: Path) -> None:
    later = measured_elsewhere(disturbed("opt-125m", step=9.0), measured_at="2027-01-01T00:00:00+00:00")
    table = short([record("opt-125m"), altered(later, repeats=9)])
    assert list(table.frame["ms a token"]) == ["110.0 (100.0-150.0)"]
    failed = record("opt-125m", status="failed", metrics={}, samples={}, error="broke")
    for order, shown in (("ab", "disturbed"), ("ba", "disturbed"), ("bc", "ok"), ("cb", "ok")):
        for name, one in zip("abc", (failed, disturbed("opt-125m"), record("opt-125m")), strict=True):
            Store(tmp_path / name).write(one)
        records, _ = page.read([tmp_path / name for name in order])
        assert [one.status for one in records] == [shown]


def test_a_band_holds_the_repeats_that_lie_together() -> None:
    for values, low, high, apart in (
        ([1.0, 1.01, 1.7], 1.0, 1.01, [1.7]),
        ([1.0, 0.3, 1.01], 1.0, 1.01, [0.3]),
        ([1.0, 1.0, 1.09], 1.0, 1.09, []),  # two agree by chance: near is not apart
        ([1.0, 1.2, 1.5], 1.0, 1.5, []),  # no two agree: nothing says which is right
        ([1.0] * 9 + [1.05, 1.3, 5.0], 1.0, 1.05, [1.3, 5.0]),
    ):
        row = bands.spread("x_s", values)
        assert (row["band_low"], row["band_high"], row["apart"]) == (low, high, apart)
        assert (row["low"], row["high"]) == (min(values), max(values))


def test_one_repeat_with_a_spike_does_not_flatten_the_figure() -> None:
    def limits(spike: float) -> tuple[dict[str, float], dict[str, list[tuple[str, float]]]]:
        made = [record(name, step=0.03) for name in ("rwkv4-169m", "pythia-160m")]
        made[0].samples["token_seconds"] = [
            [0.03 * (i + 1) + 0.001 * run + (spike if run == 2 and i >= 5 else 0) for i in range(64)]
            for run in range(3)
        ]
        (view,) = inference.views(read(made))
        tops, marks = {}, {}
        for picture in view.pictures[:2]:
            axes = picture.draw().axes[0]
            tops[picture.name] = axes.get_ylim()[1]
            marks[picture.name] = [
                (str(line.get_marker()), float(line.get_ydata()[0]))
                for line in axes.lines
                if len(line.get_xdata()) == 1
            ]
        return tops, marks

    quiet, none = limits(0.0)
    spiked, marks = limits(700.0)
    assert none == {"cumulative-fair": [], "latency-fair": []}
    for name, top in quiet.items():
        assert spiked[name] <= 1.2 * top, name
        assert {mark for mark, _ in marks[name]} == {"^"} and {y for _, y in marks[name]} == {spiked[name]}
    _, near = limits(0.5)  # within the axis of cumulative time
    assert near["cumulative-fair"] == [("x", pytest.approx(0.03 * 64 + 0.502))]  # at its end alone


def test_encoders_that_were_disturbed_have_no_ratio() -> None:
    def raced(status: Status, tokens: int, times: float, mixer: str = "s4") -> Record:
        titles = {mixer: mixer.upper(), "attention": "attention"}
        made = test_lra.raced({mixer: [times] * 3, "attention": [2 * times] * 3}, titles, tokens=tokens)
        return replace(made, status=status, error="noise")

    made = [raced("ok", 64, 1.0), raced("disturbed", 128, 3.0)]
    (view,) = encoders.views(read(made))
    (line,) = view.tables[0].frame.to_dict("records")
    assert line["64"] == "1000 (1000-1000), x2.00 (2.00-2.00), 1" and line["128"] == "3000 (3000-3000)†, -, 1"
    time, memory = view.pictures[0].panels
    assert [list(series.crossed) for series in time.series] == [[False, True]] * 2
    assert not any(any(series.crossed) for series in memory.series)
    (view,) = encoders.views(read([*made, raced("ok", 128, 2.5, "gru")]))
    lines = {series.label: list(series.y) for series in view.pictures[0].panels[0].series}
    assert lines == {"S4D": [1000, 3000], "attention": [2000, 5000], "GRU": [2500]}  # attention's undisturbed one alone
