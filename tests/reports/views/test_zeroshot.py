"""The zero-shot views: errors, averages, published beside ours, and models compared item by item."""

import math
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from reports import page
from reports.published import paper
from reports.records.record import Record
from reports.records.store import Store
from reports.statistics import paired
from reports.views import pairs, zeroshot
from reports.views.table import read
from rwkv_core import models
from rwkv_core.errors import BadInput
from tests import make

TWELVE = [name for name, entry in zeroshot.tasks().items() if entry.get("twelve")]


def record(model: str, task: str, score: float, weights: str = "pretrained", **changes: Any) -> Record:
    cell = make.cell("zeroshot", model, {"task": task, "protocol": "v0.4", **changes}, weights=weights)
    metric = zeroshot.tasks()[task]["metric"]
    metrics = {
        "docs": 100,
        metric: score,
        f"{metric}_stderr": 0.05,
        f"{metric}_chance": 0.25,
        "parameters": models.find(model).parameters,
        "data_fingerprint": "same",
    }
    if task == "lambada_openai":
        metrics |= {"perplexity": 40.0, "perplexity_stderr": 2.0}
    rng = random.Random(f"{model} {task}")
    items = [{"doc": i, "question": i, metric: float(rng.random() < score)} for i in range(100)]
    return make.record(cell, metrics, {"items": items})


@pytest.fixture
def records() -> list[Record]:
    return [record(m, t, s) for m, s in (("rwkv4-169m", 0.5), ("pythia-160m", 0.4)) for t in TWELVE]


def tables(records: list[Record]) -> dict[str, pd.DataFrame]:
    found = zeroshot.views(read(records))
    return {table.name: table.frame for view in found for table in view.tables}


def test_scores_have_errors_chance_and_an_average(records: list[Record]) -> None:
    frame = tables(records)["zeroshot-v04"].set_index("model")
    assert frame.loc["RWKV-4 169M", "PIQA acc"] == "50.00 ± 5.00"
    assert frame.loc["RWKV-4 169M", "LAMBADA perplexity"] == "40.00 ± 2.00"
    assert frame.loc["chance", "PIQA acc"] == "25.00"
    assert frame.loc["RWKV-4 169M", "average of twelve"] == f"50.00 ± {5 / math.sqrt(12):.2f}"
    assert tables(records[:11])["zeroshot-v04"].loc[0, "average of twelve"] == "-"  # one task is missing


def test_all_right_has_the_bound_of_its_questions_and_no_error() -> None:
    made = [record("rwkv4-169m", "piqa", 1.0), record("rwkv4-169m", "sciq", 0.0), record("rwkv4-169m", "boolq", 0.5)]
    made[1].metrics["questions"] = 50
    for one in made[:2]:
        one.metrics["acc_stderr"] = 0.0
    (view,) = zeroshot.views(read(made))
    line = view.tables[0].frame.set_index("model").loc["RWKV-4 169M"]
    assert (line["PIQA acc"], line["SciQ acc"]) == ("100.00 (≥ 97.00)", "0.00 (≤ 6.00)")
    assert view.tables[1].frame.set_index("model").loc["RWKV-4 0.17B", "PIQA"] == "65.07 / 100.00 (≥ 97.00) / +34.93"
    assert all("rule of three" in table.note for table in view.tables[:3])
    (view,) = zeroshot.views(read(made[2:]))
    assert not any("rule of three" in table.note for table in view.tables)


def test_scores_near_any_baseline_that_is_printed_are_named() -> None:
    made = [
        record("rwkv4-169m", "piqa", 0.36),  # two errors of 0.05 above chance, 0.25, and no more
        record("rwkv4-169m", "sciq", 0.34),
        record("rwkv4-169m", "boolq", 0.5),
        record("rwkv4-169m", "copa", 0.5),
        record("rwkv4-169m", "hellaswag", 0.0),
        record("rwkv4-169m", "openbookqa", 1.0),
        record("pythia-160m", "sciq", 0.5),
        record("pythia-160m", "lambada_openai", 0.5),  # has no baseline
    ]
    made[2].metrics["acc_named"] = 0.45
    made[3].metrics["acc_fixed"] = 0.6
    made[5].metrics.update(acc_norm_named=0.98, acc_norm_stderr=0.0)
    del made[7].metrics["acc_chance"]
    (view,) = zeroshot.views(read(made))
    sentence = view.text[-1]
    assert sentence.startswith("Of 7 scores with a baseline in the table, 5 are within 2 standard errors of one")
    assert sentence.endswith(": RWKV-4 169M: SciQ, BoolQ, COPA, HellaSwag, OpenBookQA.")
    (view,) = zeroshot.views(read(made[6:7]))
    assert view.text[-1].startswith("Of 1 scores") and view.text[-1].endswith(": none.")
    (view,) = zeroshot.views(read(made[7:]))
    assert view.text[-1].startswith("Measured on")


def test_the_published_tables_are_whole_with_ours_beside(records: list[Record]) -> None:
    found = tables(records)
    for name, columns in (("table3", 7), ("table4", 7)):
        assert found[f"zeroshot-{name}-v04"].shape == (19, columns + 1)
    ours = found["zeroshot-table3-v04"].set_index("model")
    assert ours.loc["RWKV-4 0.17B", "PIQA"] == "65.07 / 50.00 ± 5.00 / -15.07"
    assert ours.loc["RWKV-4 14.2B", "PIQA"].endswith(" / -")
    assert ours.loc["RWKV-4 0.17B", "StoryCloze"] == "58.79 / -"
    published = paper.table("zero_shot")
    for model, value in ours["WinoGrande"].items():
        row = published[(published.model == model) & (published.task == "winogrande")]
        assert value.startswith(f"{row.value.iloc[0]} / ")
    ppl = found["zeroshot-table4-v04"].set_index("model").loc["RWKV-4 0.17B", "LAMBADA ppl"]
    assert " / 40.00 ± 2.00 / " in ppl


def test_random_weights_say_so_and_have_no_difference() -> None:
    made = [record(model, "piqa", 0.5, weights="random:0") for model in ("rwkv4-169m", "pythia-160m")]
    (view,) = zeroshot.views(read(made))
    assert not view.comparisons, "of chance nothing is said"
    assert "every score here is chance" in view.text[0] and "random weights" in view.title
    assert view.tables[1].frame.set_index("model").loc["RWKV-4 0.17B", "PIQA"] == "65.07 / 50.00 ± 5.00"


def test_every_published_name_of_a_model_and_task_exists() -> None:
    published = paper.table("zero_shot")
    for ours in (paper.ZERO_SHOT_MODELS, paper.LATER_MODELS):
        assert set(ours) <= set(published.model) and set(ours.values()) <= set(models.catalogue())
    names = {name for entry in zeroshot.tasks().values() for name in entry.get("published", [])}
    assert names <= set(published.task)
    drawn = pd.DataFrame(paper.zero_shot_rows())
    assert set(drawn.family) == {"rwkv4", "pythia", "gpt-neo", "opt", "bloom", *paper.LATER_CURVES}
    assert drawn[drawn.metric != "ppl"].value.between(0, 1).all()


def test_pairs_count_what_only_one_gets_right() -> None:
    first = [{"doc": i, "acc": a} for i, a in enumerate([1, 1, 1, 1, 1, 0, 0, 1, 1, 1])]
    second = [{"doc": i, "acc": a} for i, a in enumerate([1, 1, 0, 0, 0, 1, 0, 0, 0, 0])]
    found = paired.compare(first, second, "acc")
    assert (found.items, found.first_only, found.second_only) == (10, 6, 1)
    assert found.difference == pytest.approx(0.5)
    assert found.p == pytest.approx(2 * (1 + 7) / 2**7)
    spread = math.sqrt(sum((d - 0.5) ** 2 for d in [0, 0, 1, 1, 1, -1, 0, 1, 1, 1]) / 9 / 10)
    assert found.high - found.low == pytest.approx(2 * 1.959964 * spread, rel=1e-5)
    right = [{"doc": 0, "acc": 1}]
    assert paired.compare(right, right, "acc").all_right and not found.all_right
    assert paired.mcnemar(0, 0) == 1.0 and paired.mcnemar(5, 5) == 1.0
    with pytest.raises(ValueError, match="not the same items"):
        paired.compare(first, second[1:], "acc")


def test_items_of_one_question_widen_the_interval() -> None:
    rng = random.Random(0)
    first, second = ([{"doc": i, "question": i // 10, "acc": acc} for i in range(100)] for acc in (1.0, 0.0))
    right = [rng.random() < 0.5 for _ in range(10)]
    for item in second:
        item["acc"] = float(right[item["question"]])
    apart = [[{**item, "question": item["doc"]} for item in items] for items in (first, second)]
    together, alone = paired.compare(first, second, "acc"), paired.compare(*apart, "acc")
    few = paired.compare(first[::10], second[::10], "acc")
    assert together.difference == alone.difference == few.difference
    assert together.high - together.low == pytest.approx(few.high - few.low)
    assert together.high - together.low > 3 * (alone.high - alone.low)
    assert (together.first_only, together.p) == (alone.first_only, few.p) and alone.p < together.p


def test_a_test_of_questions_says_nothing_of_items_that_point_the_other_way() -> None:
    questions = [*range(12), *[12] * 20]  # the second side wins all items of one question alone
    first = [{"doc": i, "question": question, "acc": float(question < 12)} for i, question in enumerate(questions)]
    second = [{**item, "acc": 1 - item["acc"]} for item in first]
    compared = paired.compare(first, second, "acc")
    assert compared.difference < 0 < compared.lead and compared.p < 0.01
    assert compared.undecided == "more items are right on one side and more questions on the other"
    assert not paired.compare(first[:12], second[:12], "acc").undecided


def test_only_the_same_items_are_compared(records: list[Record]) -> None:
    lines = tables(records)["zeroshot-pairs-v04"]
    assert len(lines) == 12 and set(lines["first"]) == {"RWKV-4 169M"}
    other = record("pythia-160m", "piqa", 0.4)
    other.metrics["data_fingerprint"] = "other"
    assert "zeroshot-pairs-v04" not in tables([records[0], other])
    with pytest.raises(BadInput, match="not scored on the same items"):
        pairs.comparison(read([record("rwkv4-169m", "piqa", 0.5), other]), "rwkv4-169m", "pythia-160m")
    with pytest.raises(BadInput, match="did you mean rwkv4-169m"):
        pairs.comparison(read(records), "rwkv4-160m", "pythia-160m")


def test_the_page_and_the_comparison_read_items_from_a_store(records: list[Record], tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for made in records:
        store.write(made)
    list(page.write([store.folder], tmp_path / "out"))
    assert (tmp_path / "out" / "figures" / "zeroshot-parameters-v04.png").is_file()
    assert (tmp_path / "out" / "figures" / "zeroshot-flops-v04.svg").is_file()
    text = (tmp_path / "out" / "index.html").read_text()
    assert "Item by item" in text and "65.07 / 50.00 ± 5.00" in text
    sentences = (tmp_path / "out" / "report.md").read_text()
    assert "- RWKV-4 169M against Pythia 160M, items right: " in sentences and "all 12 tests of this page" in sentences
    assert "<li>RWKV-4 169M against Pythia 160M, items right: " in text
    lines = list(page.compare([store.folder], "pythia-160m", "rwkv4-169m"))
    assert "WinoGrande" in lines[0] and "McNemar" in lines[1]


def test_later_models_stand_beside_what_others_print_of_them() -> None:
    made = [
        record("rwkv7-1b5", "piqa", 0.5),
        record("mamba-130m", "lambada_openai", 0.5),
        record("rwkv4-169m", "piqa", 0.5),
    ]
    table = tables(made)["zeroshot-later-v04"].set_index("published")
    assert set(table.ours) == {"RWKV-7 1.5B", "Mamba 130M"}, "of the paper's models nothing"
    goose = "jannalulu/lm-evaluation-harness-goose@1039f7b0d3"
    line = table.loc["fla-hub/rwkv7-1.5B-world"]
    assert line["where"] == goose and line["PIQA acc"] == "76.9859 / 50.00 ± 5.00 / -26.99"
    assert line["PIQA acc_norm"] == "77.4755 / -", "not measured"
    mamba = table.loc["Mamba-130M"]
    assert mamba["LAMBADA ppl"] == "16.07 / 40.00 ± 2.00 / +23.93" and mamba["PIQA acc"] == "64.5 / -"
    assert "zeroshot-later-v04" not in tables(made[2:])


def test_curves_of_later_families_are_drawn_where_one_of_theirs_was_measured() -> None:
    def drawn(model: str) -> set[str]:
        (view,) = zeroshot.views(read([record(model, "piqa", 0.5)]))
        return {series.label for picture in view.pictures for panel in picture.panels for series in panel.series}

    assert {"RWKV-7, published", "RWKV-4, published"} <= drawn("rwkv7-1b5")
    assert not {"RWKV-7, published", "Mamba, published"} & drawn("rwkv4-169m")
    assert "RWKV-5, published" in drawn("rwkv5-3b") and "RWKV-7 Pile, published" not in drawn("rwkv5-3b")


def test_models_of_one_family_are_those_of_one_training() -> None:
    """So that a line through them is one of size alone."""
    frame = pd.DataFrame(paper.zero_shot_rows())
    assert set(frame[frame.family == "rwkv7-pile"].parameters) == {0.1676e9, 1.465e9}
    assert set(frame[frame.family == "rwkv7"].parameters) == {1.527e9, 2.948e9}
    assert not frame.duplicated(["family", "parameters", "task", "metric"]).any()
