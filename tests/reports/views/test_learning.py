"""Views of loss against context, and the pocket world's scores."""

import math
from dataclasses import replace
from typing import Any

import pytest

from reports.records.record import Record
from reports.views import learning, zeroshot
from reports.views.table import read
from tests import make
from tests.make import altered
from tests.reports.views.test_zeroshot import TWELVE
from tests.reports.views.test_zeroshot import record as scored


def record(experiment: str, model: str, metrics: dict[str, Any], samples: dict[str, Any], **params: Any) -> Record:
    weights = params.pop("weights", "pretrained")
    cell = make.cell(experiment, model, {"text": "pocket", "tokenizer": "own", **params}, version=2, weights=weights)
    return make.record(cell, metrics, samples)


def curve(first: float) -> dict[str, list[float]]:
    return {"context": [2, 4, 8], "losses": [[first - i + n * (1 + i) / 10 for i in range(3)] for n in (-1, 0, 1)]}


LEVELS = {"no look-up": {"4": 3.5, "8": 3.0}, "perfect look-up": {"4": 3.0, "8": 2.0}}  # as JSON keeps them


def test_loss_against_context_stands_beside_the_published_curve() -> None:
    found = [
        record(
            "context",
            model,
            {"trained_tokens": 256, "documents": 3, "documents_fingerprint": "same", "tokens": 8},
            {**curve(loss), "levels": LEVELS},
        )
        for model, loss in (("pocket-rwkv4", 5.0), ("pocket-opt", 6.0))
    ]
    (view,) = learning.views(read(found))
    frame = view.tables[0].frame.set_index("model")
    assert frame.loc["pocket OPT", "4"] == f"5.000 ± {0.2 / math.sqrt(3):.3f}"
    assert frame.loc["perfect look-up", "8"] == "2.000" and frame.loc["no look-up", "8"] == "3.000"
    (paired,) = view.tables[1].frame.to_dict("records")
    assert paired == {
        "RWKV-4": "pocket RWKV-4",
        "minus": "pocket OPT",
        **dict.fromkeys(("2", "4", "8"), "-1.000 ± 0.000"),
    }
    (one,) = view.comparisons  # at the longest context; the trained window was not read
    assert (one.item, one.lead, one.p) == ("8 tokens", 1.0, 0.0) and "One training" in one.caution
    assert not one.undecided
    (other,) = next(learning.views(read([altered(record, text="files:1") for record in found]))).comparisons
    assert other.undecided == "pieces of one text were counted as documents of their own"
    ours, published = view.pictures[0].panels
    names = ["pocket RWKV-4", "pocket OPT", "no look-up", "perfect look-up"]
    assert [series.label for series in ours.series] == names
    assert list(ours.series[0].low or []) == pytest.approx([5 - i - 0.1 * (i + 1) / math.sqrt(3) for i in range(3)])
    assert {series.family for series in published.series} == {"rwkv4"} and published.series[0].hollow


def test_a_shorter_measurement_beside_a_longer_one_leaves_dashes() -> None:
    metrics = {"trained_tokens": 256, "documents": 3}
    found = [
        record("context", model, {**metrics, "documents_fingerprint": str(n)}, {**samples, "levels": {}}, tokens=2**n)
        for n in (2, 3)
        for samples in [{"context": [2, 4, 8][:n], "losses": [row[:n] for row in curve(5.0)["losses"]]}]
        for model in ("pocket-rwkv4", "pocket-opt")
    ]
    (view,) = learning.views(read(found))
    for table in view.tables:
        assert list(table.frame["8"]).count("-") == len(table.frame) / 2
        assert "| - |" in table.markdown() and "nan" not in table.markdown()


def test_other_documents_are_not_compared_and_older_records_are_named() -> None:
    found = [
        record(
            "context",
            model,
            {"trained_tokens": 256, "documents": 3, "documents_fingerprint": model, "tokens": 8},
            {**curve(5.0), "levels": {}},
        )
        for model in ("pocket-rwkv4", "pocket-opt")
    ]
    (view,) = learning.views(read(found))
    assert [table.name for table in view.tables] == ["context"]
    found[0] = replace(altered(found[0], version=1), samples={})
    results = read(found)
    (line,) = results.refused()
    assert line["status"] == "outdated" and "measures it again" in line["error"]
    (view,) = learning.views(results)
    assert list(view.tables[0].frame.model) == ["pocket OPT"]


def test_an_extension_has_a_panel_a_stage() -> None:
    stages = [{"window": 256, "tokens": 0, "seconds": 0.0, **curve(5.0)}, {"window": 512, "tokens": 9, "seconds": 1.0}]
    stages[1] |= curve(4.0)
    samples = {"stages": stages, "levels": {}}  # as with any text but the pocket world's
    metrics = {"tokens": 9, "documents": 3, "documents_fingerprint": "same"}
    found = [record("extend", "pocket-rwkv4", metrics, samples, schedule="pocket")]
    (view,) = learning.views(read(found))
    titles = [panel.title for panel in view.pictures[0].panels]
    assert titles[:2] == ["Before (windows of 256)", "After stage 1 (windows of 512)"]
    assert [table.name for table in view.tables] == ["extend-1", "extend-0"]  # the last stage, as the sentences
    assert view.tables[0].frame.loc[0, "2"] == f"4.000 ± {0.1 / math.sqrt(3):.3f}"
    assert view.tables[0].title.endswith("after stage 1 (windows of 512)")


def test_nothing_learned_no_section() -> None:
    records = [scored("rwkv4-169m", task, 0.5) for task in TWELVE]
    assert list(learning.views(read(records))) == []


def test_pocket_scores_are_marked_and_have_no_published_number_beside_them() -> None:
    records = [scored(m, task, 0.5, data="pocket:123") for m in ("pocket-rwkv4", "pocket-pythia") for task in TWELVE]
    (view,) = zeroshot.views(read(records))
    assert "POCKET WORLD" in view.text[0] and "pocket" in view.title
    assert not any("The paper's" in table.title for table in view.tables)
    (picture,) = view.pictures
    assert "pocket" in picture.footer
    (panel,) = picture.panels
    assert [series.label for series in panel.series] == ["pocket RWKV-4", "pocket Pythia", "chance", "rule of thumb"]
    assert len(panel.x_names) == len(panel.series[0].x) == 12
    picture.draw()
