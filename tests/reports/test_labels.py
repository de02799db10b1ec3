"""One row and one line is one model, measured in one way, in every table and figure that has labels."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from reports import labels
from reports.draw.figure import HeatMap
from reports.records.record import Record
from reports.views import pairs, table, zeroshot
from reports.views.table import read
from reports.views.view import View
from rwkv_core import models
from rwkv_core.errors import BadInput
from tests.bench.speed.test_race import raced
from tests.make import PROVENANCE, altered, measured_elsewhere
from tests.reports import test_page
from tests.reports.views import test_learning, test_lra, test_needles, test_prompts, test_recall, test_zeroshot

A, B = "a1b2c3" + 6 * "0", "d4e5f6" + 6 * "0"


def twins(record: Record, key: str, *values: Any) -> list[Record]:
    return [altered(record, **{key: value}) for value in values]


def shown(records: list[Record]) -> list[View]:
    return list(table.views(read(records)))


def training(experiment: str, **params: Any) -> Record:
    metrics = {"parameters": 1, "tokens": 4, "loss": 2.5, "held_out_loss": 2.0, "tokens_per_s": 1.0, "train_s": 1.0}
    metrics |= {"passes": 1.0, "trained_tokens": 256, "documents": 3, "documents_fingerprint": "same"}
    curve = {**test_learning.curve(4.0), "levels": {}}
    stages = [
        {"window": 256, "tokens": 0, "seconds": 0.0, **curve},
        {"window": 512, "tokens": 9, "seconds": 1.0, **curve},
    ]
    samples = {"loss": [5.0] * 4, **curve, "stages": stages}
    return test_learning.record(experiment, "pocket-rwkv4", metrics, samples, **params)


def race(experiment: str, *contenders: str) -> Record:
    params = {"task": "token", "tokens": 1} if experiment == "peers" else {}
    return raced({name: [0.1 + i] * 3 for i, name in enumerate(contenders)}, experiment, **params)


def encoders() -> Record:
    titles = {"rwkv4": "RWKV-4", "attention": "attention"}
    return test_lra.raced({"rwkv4": [0.1] * 3, "attention": [0.2] * 3}, titles, tokens=64, layers=2)


WEIGHTS = ("weights", f"file:{A}", f"file:{B}"), (" (weights a1b2c3", " (weights d4e5f6")
KINDS: dict[str, tuple[Callable[[], Record], tuple[Any, ...], tuple[str, str]]] = {
    "inference": (lambda: test_page.record("rwkv4-169m"), *WEIGHTS),
    "inference, seed": (lambda: test_page.record("rwkv4-169m"), ("seed", 1, 2), (" (seed 1", " (seed 2")),
    "peers": (lambda: race("peers", "ours", "gemv"), *WEIGHTS),
    "kernels": (lambda: race("kernels", "c", "floor"), ("rounds", 3, 9), (" (rounds 3", " (rounds 9")),
    "zeroshot": (lambda: test_zeroshot.record("rwkv4-169m", "piqa", 0.5), *WEIGHTS),
    "zeroshot, docs": (
        lambda: test_zeroshot.record("rwkv4-169m", "piqa", 0.5),
        ("docs", 20, 0),
        (" (20 items", " (all items"),
    ),
    "zeroshot, threads": (
        lambda: test_zeroshot.record("rwkv4-169m", "piqa", 0.5),
        ("threads", 1, 4),
        (" (threads 1", " (threads 4"),
    ),
    "zeroshot, tokenizer": (
        lambda: test_zeroshot.record("rwkv4-169m", "piqa", 0.5),
        ("tokenizer", "own", f"file:{A}"),
        (" (tokenizer own", " (tokenizer a1b2c3"),
    ),
    "zeroshot, share": (
        lambda: test_zeroshot.record("rwkv4-169m", "piqa", 0.5),
        ("share", True, False),
        (" (share yes", " (share no"),
    ),
    "zeroshot, data": (
        lambda: test_zeroshot.record("rwkv4-169m", "piqa", 0.5),
        ("data", f"hub:{B}{'0' * 28}", f"local:{A}"),
        (" (data hub:d4e5f6", " (data local:a1b2c3"),
    ),
    "zeroshot, revision": (
        lambda: test_zeroshot.record("rwkv4-169m", "piqa", 0.5),
        ("revision", f"{A}{'0' * 28}", f"{B}{'0' * 28}"),
        (" (revision a1b2c3", " (revision d4e5f6"),
    ),
    "prompts": (lambda: test_prompts.record("rwkv4-169m", "text first", test_prompts.answered(0)), *WEIGHTS),
    "pretrain": (
        lambda: training("pretrain", weights="fresh:1", learning_rate=0.1, steps=4, window=2),
        ("window", 2, 4),
        (" (window 2", " (window 4"),
    ),
    "context": (lambda: training("context"), *WEIGHTS),
    "extend": (lambda: training("extend", schedule="pocket"), *WEIGHTS),
    "recall": (
        lambda: test_recall.record("recall-rwkv4", "query_first", 16, 0.01, 0, 0.5, 0.5),
        ("test", 10, 20),
        (" (test 10", " (test 20"),
    ),
    "needles": (lambda: test_needles.record("rwkv4-169m", 64, [(0.0, 1.0), (1.0, 0.0)]), *WEIGHTS),
    "encoders": (encoders, ("layers", 2, 4), (" (layers 2", " (layers 4")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_two_ways_of_measuring_one_model_are_two_rows_and_two_lines(kind: str) -> None:
    make, (key, *values), suffixes = KINDS[kind]
    alone, both = shown([make()]), shown(twins(make(), key, *values))
    tables = [table for view in both for table in view.tables]
    said = {table.name: table.frame.to_csv() for table in tables if any(s in table.frame.to_csv() for s in suffixes)}
    assert said
    lines = {table.name: len(table.frame) for view in alone for table in view.tables}
    for name, text in said.items():
        assert all(suffix in text for suffix in suffixes), f"{name}\n{text}"
        grown = next(len(table.frame) for table in tables if table.name == name)
        assert grown > lines[name] or name.startswith("prompts-v"), f"{name}: {lines[name]} lines, and still {grown}"
    drawn = 0
    for picture in (picture for view in both for picture in view.pictures):
        panels = [panel for panel in picture.panels if not isinstance(panel, HeatMap)]
        for panel in panels:
            legend = [series.label for series in panel.series if series.label]
            assert len(legend) == len(set(legend)), (picture.name, legend)
        places = [series.label for panel in panels for series in panel.series]
        places += [panel.title for panel in picture.panels if isinstance(panel, HeatMap)]
        drawn += all(any(suffix in place for place in places) for suffix in suffixes)
        if "," not in kind:  # the others look alike
            picture.draw()
    assert drawn or kind in ("peers", "prompts")  # which have no figure of single cells
    assert not any(suffix in table.frame.to_csv() for view in alone for table in view.tables for suffix in suffixes)


def test_a_matrix_with_twenty_items_and_then_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    few, every = twins(test_zeroshot.record("pythia-160m", "piqa", 0.95), "docs", 20, 0)
    few.metrics.update(docs=20, acc_chance=0.4)
    every.metrics.update(docs=400, acc=0.8875)
    other = altered(test_zeroshot.record("pythia-160m", "boolq", 0.575), docs=0)
    (view,) = zeroshot.views(read([few, every, other]))
    frame = view.tables[0].frame.set_index("model")
    assert list(frame.index[:2]) == ["Pythia 160M (20 items)", "Pythia 160M (all items)"]
    assert list(frame["PIQA acc"][:2]) == ["95.00 ± 5.00", "88.75 ± 5.00"]
    assert list(frame["BoolQ acc"][:2]) == ["-", "57.50 ± 5.00"] and list(frame["items"][:2]) == ["20", "100 to 400"]
    assert frame.loc["chance (20 items)", "PIQA acc"] == "40.00"
    assert frame.loc["chance (all items)", "PIQA acc"] == "25.00"
    published = next(table.frame for table in view.tables if "table3" in table.name).set_index("model")
    assert published.loc["Pythia 0.16B (20 items)", "PIQA"].endswith(" / 95.00 ± 5.00 / +32.32")


def test_two_checkpoints_of_one_name_are_compared_item_by_item() -> None:
    one, other = twins(test_zeroshot.record("rwkv4-169m", "piqa", 0.5), "weights", f"file:{A}", f"file:{B}")
    other.samples["items"] = [{**item, "acc": 1.0} for item in other.samples["items"]]
    pythia = test_zeroshot.record("pythia-160m", "piqa", 0.5)
    pair = pairs.comparison(read([one, other]), "rwkv4-169m", "rwkv4-169m").frame
    assert pair[["first", "second"]].to_numpy().tolist() == [
        ["RWKV-4 169M (weights a1b2c3)", "RWKV-4 169M (weights d4e5f6)"]
    ]
    assert pair["only second"][0] != "0" and pair["only first"][0] == "0"
    three = [one, other, pythia]
    assert len(pairs.comparison(read(three), "rwkv4-169m", "pythia-160m").frame) == 2
    assert len(pairs.comparison(read(three), "RWKV-4 169M (weights d4e5f6)", "pythia-160m").frame) == 1
    (view,) = zeroshot.views(read(three))
    lines = next(table.frame for table in view.tables if "pairs" in table.name)
    assert set(lines["first"]) == {"RWKV-4 169M (weights a1b2c3)", "RWKV-4 169M (weights d4e5f6)"}
    with pytest.raises(BadInput, match="not scored on the same items"):
        pairs.comparison(read([one]), "rwkv4-169m", "rwkv4-169m")


def test_a_comparison_tells_types_and_machines_apart() -> None:
    made = [test_zeroshot.record(name, "piqa", 0.5) for name in ("rwkv4-169m", "pythia-160m")]
    made += [altered(record, dtype="bfloat16") for record in made]
    frame = pairs.comparison(read(made), "rwkv4-169m", "pythia-160m").frame
    assert sorted(zip(frame["first"], frame["second"], strict=True)) == [
        (f"RWKV-4 169M, {one}", f"Pythia 160M, {other}")
        for one in ("bfloat16", "float32")
        for other in ("bfloat16", "float32")
    ]


def test_the_same_cell_on_another_machine_has_items_of_its_own() -> None:
    here = [test_zeroshot.record(name, "piqa", 0.5) for name in ("rwkv4-169m", "pythia-160m")]
    elsewhere = [measured_elsewhere(record, machine="Other") for record in here]
    items = [{**item, "acc": 1.0} for item in here[0].samples["items"]]
    elsewhere[0] = replace(elsewhere[0], samples={"items": items})
    results = read([*elsewhere, *here])
    assert results.items(here[0].id, "Other") == items != results.items(here[0].id, PROVENANCE["machine"])
    for view in zeroshot.views(results):
        lines = next(table.frame for table in view.tables if "pairs" in table.name)
        assert len(lines) == 1 and (lines["only second"][0] == "0") == ("Other" in view.text[1])
    compared = pairs.comparison(results, "rwkv4-169m", "pythia-160m").frame
    machines = [line.rpartition(", ")[2] for line in compared["first"]]
    assert machines == ["Other", "Other", PROVENANCE["machine"], PROVENANCE["machine"]]
    assert [wins == "0" for wins in compared["only second"]] == [True, True, False, False]


def test_what_a_later_version_measured_anew_is_shown_no_more() -> None:
    old = altered(test_zeroshot.record("rwkv4-169m", "piqa", 0.5), docs=0)
    new = altered(test_zeroshot.record("rwkv4-169m", "piqa", 0.6), docs=0, share=True, version=3)
    other = altered(test_zeroshot.record("rwkv4-169m", "piqa", 0.7), docs=20)
    assert labels.current([old, new, other]) == [new, other]
    threads = altered(new, threads=1)
    assert labels.current([old, threads]) == [old, threads]
    failed = replace(new, status="failed")
    assert labels.current([old, failed]) == [old, failed]
    frame = pd.DataFrame(read([new, other]).rows)
    assert set(frame.label) == {"RWKV-4 169M (all items, version 3)", "RWKV-4 169M (20 items, version 1)"}


def test_seeds_of_training_are_pooled_and_tell_nothing_apart() -> None:
    records = [test_recall.record("recall-rwkv4", "query_first", 16, 0.01, seed, 0.5, 0.5) for seed in (0, 1)]
    assert {row["label"] for row in read(records).rows} == {models.find("recall-rwkv4").label}


def test_contents_that_begin_alike_are_said_in_full() -> None:
    long = [f"file:{A}", f"file:{A[:-1]}1"]
    found = read(twins(test_zeroshot.record("rwkv4-169m", "piqa", 0.5), "weights", *long)).rows
    assert {row["label"] for row in found} == {f"RWKV-4 169M (weights {one})" for one in long}
