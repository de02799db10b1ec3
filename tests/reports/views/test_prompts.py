"""The prompt study's views: metrics against scikit-learn, floors, intervals, and the paper's numbers beside ours."""

import random
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

from reports.records.record import Record
from reports.statistics import orders
from reports.views import prompts
from reports.views.table import read
from rwkv_core import models
from tests import make

LABELS = 3


def answered(seed: int, right: float = 0.5, several: bool = False, docs: int = 200) -> list[dict[str, Any]]:
    gold, rng = random.Random("gold"), random.Random(seed)
    found = []
    for i in range(docs):
        own = sorted(gold.sample(range(LABELS), gold.choice([1, 2]) if several else 1))
        said = rng.choice(own) if rng.random() < right else rng.choice([None, *range(LABELS)])
        found.append({"doc": i, "gold": own, "answer": said, "question": i, "cut": False})
    return found


@pytest.mark.parametrize("several", [False, True])
def test_macro_f1_is_scikit_learns(several: bool) -> None:
    items = answered(0, several=several)
    gold, said = np.zeros((2, len(items), LABELS))
    for i, item in enumerate(items):
        gold[i, item["gold"]] = 1
        if item["answer"] is not None:
            said[i, item["answer"]] = 1
    found = orders.score(items, LABELS, "macro_f1")
    assert found.value == pytest.approx(f1_score(gold, said, average="macro"))
    accuracy = orders.score(items, LABELS, "accuracy")
    assert accuracy.value == pytest.approx((gold * said).sum() / len(items))
    binomial = (accuracy.value * (1 - accuracy.value) / len(items)) ** 0.5
    assert accuracy.stderr == pytest.approx(binomial, rel=0.1)
    absent = [{**item, "gold": [min(k, 1) for k in item["gold"][:1]]} for item in items]  # label 2 is never right
    gold = np.array([[item["gold"][0] == k for k in range(LABELS)] for item in absent])
    expected = f1_score(gold, said, average="macro", labels=[0, 1])
    assert orders.score(absent, LABELS, "macro_f1").value == pytest.approx(expected)


def test_floors_are_what_a_guess_and_a_stubborn_model_score() -> None:
    items = answered(0, several=True, docs=4000)
    rng = random.Random(1)
    for metric in orders.METRICS:
        found = orders.score(items, LABELS, metric)
        guess = orders.score([{**item, "answer": rng.randrange(LABELS)} for item in items], LABELS, metric)
        assert guess.value == pytest.approx(found.chance, abs=0.03)
        fixed = [orders.score([{**i, "answer": k} for i in items], LABELS, metric).value for k in range(LABELS)]
        assert found.fixed == pytest.approx(max(fixed))
    rare = [{"doc": i, "question": i, "gold": [min(i // 100, 2)], "answer": min(i // 100, 2)} for i in range(201)]
    found = orders.score(rare, LABELS, "macro_f1")
    assert (found.value, found.stderr) == (1, 0)  # though many a resample lacks the rare label
    key = [{**item, "answer": item["gold"][0]} for item in items]
    assert orders.score(key, LABELS, "accuracy").value == 1


def test_an_order_that_does_nothing_has_an_interval_about_zero_and_one_that_does_has_not() -> None:
    plain, better = answered(0, 0.3), answered(0, 0.9)
    none = orders.effect(plain, plain, LABELS, "macro_f1")
    assert none[:8] == (200, 0.0, 0.0, 0.0, 0, 0, 1.0, 0) and none.unread[0] == none.unread[1]
    found = orders.effect(plain, better, LABELS, "accuracy")
    assert 0 < found.low < found.difference < found.high and found.p < 1e-6
    assert found.second_only - found.first_only == round(found.difference * len(plain))
    back = orders.effect(better, plain, LABELS, "accuracy")
    assert (back.difference, back.low) == pytest.approx((-found.difference, -found.high))
    with pytest.raises(ValueError, match="not the same items"):
        orders.effect(plain, better[1:], LABELS, "accuracy")


def test_items_of_one_question_count_together() -> None:
    first, second = answered(0, 0.3), answered(1, 0.6)
    alone = orders.effect(first, second, LABELS, "accuracy")
    twice = orders.effect([*first, *first], [*second, *second], LABELS, "accuracy")
    assert twice.items == 400 and (twice.low, twice.high) == pytest.approx((alone.low, alone.high))
    assert (twice.first_only, twice.second_only) == (2 * alone.first_only, 2 * alone.second_only)
    assert twice.p == alone.p
    scored = [orders.score(items, LABELS, "macro_f1") for items in (first, [*first, *first])]
    assert scored[0].stderr == pytest.approx(scored[1].stderr)


def test_items_that_were_cut_in_one_order_are_left_out_of_both() -> None:
    first, second = answered(0, 0.3), answered(0, 0.9)
    cut = [{**item, "cut": item["doc"] < 50} for item in second]
    assert orders.effect(first, cut, LABELS, "macro_f1") == orders.effect(first[50:], second[50:], LABELS, "macro_f1")
    unread = [{**item, "answer": None if item["cut"] else 0} for item in cut]
    assert orders.effect(unread, unread, LABELS, "accuracy").unread == (0, 0)


def record(
    model: str, order: str, items: list[dict[str, Any]], data: str = "same", weights: str = "pretrained"
) -> Record:
    params = {"task": "tweetsent", "order": order, "way": "score", "tokenizer": "own"}
    cell = make.cell("prompts", model, params, version=2, weights=weights)
    unread = sum(item["answer"] is None for item in items)
    metrics = {"docs": len(items), "labels": LABELS, "unparsed": unread, "parameters": models.find(model).parameters}
    metrics |= {"data_fingerprint": data, "cut": sum(item["cut"] for item in items)}
    return make.record(cell, metrics, {"items": items})


def test_the_papers_numbers_stand_beside_ours_and_the_order_has_its_effect() -> None:
    records = [
        record(model, order, answered(0, right))
        for model, first, second in (("rwkv4-169m", 0.3, 0.8), ("pythia-160m", 0.5, 0.5))
        for order, right in (("text first", first), ("question first", second))
    ]
    (view,) = prompts.views(read(records))
    tables = {table.name: table.frame for table in view.tables}
    assert list(tables["prompts"]["unreadable"]) == [
        str(r.metrics["unparsed"]) for r in sorted(records, key=lambda r: r.cell.params["order"] != "text first")
    ]
    effects = tables["prompts-effects"].set_index("model")
    assert effects.loc["RWKV-4 169M", "orders"] == "question first minus text first"
    assert effects.loc["RWKV-4 169M", "difference"].startswith("+") and effects.loc["RWKV-4 169M", "p"] == "<0.001"
    assert effects.loc["Pythia 160M", "difference"] == "+0.0 (+0.0 to +0.0)"
    moved, level = view.comparisons
    assert moved.heading == "RWKV-4 169M, accuracy of question first against text first" and moved.lead > 0.2
    assert (level.lead, level.p) == (0.0, 1.0)
    assert "Of 2 effects on macro-F1, 1 have a 95 % interval that leaves zero out; in 0 of these" in view.text[-1]
    table = tables["prompts-v2table7"].set_index("task")
    assert table.loc["TweetSent", "RWKV-4-Raven-14B, adapted / re-ordered prompt"] == "52.50"
    expected = orders.score(records[0].samples["items"], LABELS, "macro_f1")
    ours = f"{100 * expected.value:.1f} ± {100 * expected.stderr:.1f}"
    assert table.loc["TweetSent", "RWKV-4 169M, text first, score"] == ours
    (picture,) = view.pictures
    (panel,) = picture.panels
    assert panel.series[0].low is not None and panel.series[0].y[0] > 20 and panel.series[1].y[0] == 0
    picture.draw()


def test_only_the_accuracy_of_all_right_has_a_bound_which_is_that_of_the_questions() -> None:
    items = [{**item, "answer": item["gold"][0], "question": i // 2} for i, item in enumerate(answered(0))]
    (view,) = prompts.views(read([record("rwkv4-169m", "text first", items)]))
    line = view.tables[0].frame.iloc[0]
    assert line["accuracy"].startswith("100.0 (≥ 97.0) (") and line["macro_f1"].startswith("100.0 (")
    assert "≥" not in line["macro_f1"] and "rule of three" in view.tables[0].note


def test_orders_of_other_items_are_not_compared() -> None:
    records = [
        record("rwkv4-169m", "text first", answered(0)),
        record("rwkv4-169m", "question first", answered(0), "other"),
    ]
    (view,) = prompts.views(read(records))
    assert "prompts-effects" not in {table.name for table in view.tables} and not view.pictures


def test_other_seeds_are_other_models() -> None:
    records = [
        record("rwkv4-169m", order, answered(0, right if order == "text first" else 1 - right), weights=weights)
        for weights, right in (("random:0", 0.2), ("random:1", 0.9))
        for order in ("text first", "question first")
    ]
    (view,) = prompts.views(read(records))
    effects = {table.name: table.frame for table in view.tables}["prompts-effects"].set_index("model")
    for weights, sign in (("random:0", "+"), ("random:1", "-")):
        assert effects.loc[f"RWKV-4 169M (weights {weights})", "difference"].startswith(sign)
    assert not view.comparisons, "weights that learned nothing"


def test_what_was_cut_in_every_item_has_no_effect() -> None:
    gone = [{**item, "cut": True} for item in answered(0)]
    records = [record("rwkv4-169m", order, gone) for order in ("text first", "question first")]
    (view,) = prompts.views(read(records))
    assert list(view.tables[0].frame["cut"]) == ["200", "200"] and not view.pictures


def test_nothing_asked_no_section() -> None:
    assert list(prompts.views(read([]))) == []


def test_an_order_whose_answers_name_no_label_is_not_compared() -> None:
    silent = [{**item, "answer": None} for item in answered(0)]
    records = [record("rwkv4-169m", "text first", answered(0)), record("rwkv4-169m", "question first", silent)]
    (view,) = prompts.views(read(records))
    (one,) = view.comparisons
    assert one.undecided == prompts.UNREADABLE and one.p is not None and one.p < 1e-6
