"""Every version of RWKV is compared, whether or not configs know its family."""

from typing import Any

import pandas as pd
import pytest

from reports.draw import looks
from reports.records.record import Record
from reports.views import families, inference, learning, races, zeroshot
from reports.views.table import read
from tests.bench.speed.test_race import raced
from tests.make import altered
from tests.reports import test_page
from tests.reports.views import test_learning, test_zeroshot


def renamed(record: Record, family: str, label: str) -> Record:
    """The same record of a model of another family."""
    return altered(record, name=label, family=family, label=label)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("rwkv4", "pythia", True),
        ("rwkv9", "pythia", True),
        ("rwkv9", "rwkv4", True),
        ("rwkv4", "rwkv9", False),  # the same pair
        ("rwkv4", "rwkv4", False),
        ("pythia", "rwkv4", False),
        ("pythia", "opt", False),
    ],
)
def test_each_of_ours_is_compared_with_every_family_once(first: str, second: str, expected: bool) -> None:
    assert families.compared(first, second) == expected


def test_a_family_that_configs_do_not_know_has_its_name_and_a_look() -> None:
    assert looks.label("rwkv4") == "RWKV-4" and looks.label("rwkv9") == "rwkv9"
    assert looks.look("rwkv9") == (looks.UNKNOWN["colour"], looks.UNKNOWN["marker"])
    frame = pd.DataFrame({"family": ["rwkv9", "opt", "rwkv4"]})
    assert list(families.ordered(frame, "family").family) == ["rwkv4", "opt", "rwkv9"]


def test_items_of_each_version_stand_beside_those_of_the_others() -> None:
    made = [test_zeroshot.record(name, "piqa", 0.5) for name in ("rwkv4-169m", "pythia-160m")]
    made.append(renamed(made[0], "rwkv9", "RWKV-9 168M"))
    (view,) = zeroshot.views(read(made))
    (table,) = [table for table in view.tables if "pairs" in table.name]
    assert sorted(zip(table.frame["first"], table.frame["second"], strict=True)) == [
        ("RWKV-4 169M", "Pythia 160M"),
        ("RWKV-9 168M", "Pythia 160M"),
        ("RWKV-9 168M", "RWKV-4 169M"),
    ]


def test_the_sentence_names_each_version() -> None:
    made = [test_page.record("rwkv4-169m", step=0.1), test_page.record("opt-125m", step=0.2)]
    made.append(renamed(test_page.record("rwkv4-169m", step=0.3), "rwkv9", "RWKV-9 168M"))
    (view,) = inference.views(read(made))
    times = [one for one in view.comparisons if "time of" in one.heading]
    assert [(one.heading.partition(" (")[0], one.item, one.size.partition(" ")[0]) for one in times] == [
        ("RWKV-4 169M", "OPT 125M", "0.50"),
        ("RWKV-9 168M", "RWKV-4 169M", "3.00"),
        ("RWKV-9 168M", "OPT 125M", "1.50"),
    ]


def test_losses_of_each_version_have_a_table_of_differences() -> None:
    metrics = {"trained_tokens": 256, "documents": 3, "documents_fingerprint": "same"}

    def lost(model: str, loss: float) -> Record:
        samples: dict[str, Any] = {**test_learning.curve(loss), "levels": {}}
        return test_learning.record("context", model, metrics, samples)

    made = [lost("pocket-rwkv4", 5.0), lost("pocket-opt", 6.0)]
    made.append(renamed(lost("pocket-rwkv4", 5.5), "rwkv9", "pocket RWKV-9"))
    (view,) = learning.views(read(made))
    assert "RWKV-4's and rwkv9's state go on" in view.text[0]
    _, old, new = view.tables
    assert old.name == "context-256-paired" and new.name == "context-256-paired-2"
    assert old.frame[["RWKV-4", "minus", "2"]].to_numpy().tolist() == [
        ["pocket RWKV-4", "pocket OPT", "-1.000 ± 0.000"],
    ]
    assert new.frame[["rwkv9", "minus", "2"]].to_numpy().tolist() == [
        ["pocket RWKV-9", "pocket RWKV-4", "+0.500 ± 0.000"],
        ["pocket RWKV-9", "pocket OPT", "-0.500 ± 0.000"],
    ]
    assert old.note.startswith("RWKV-4's loss minus") and new.note.startswith("rwkv9's loss minus")


def test_other_implementations_are_of_the_version_that_was_raced() -> None:
    record = raced({"ours": [0.1] * 3, "gemv": [0.2] * 3}, "peers", task="token")
    (view,) = races.views(read([renamed(record, "rwkv9", "RWKV-9 168M")]))
    assert view.title.startswith("rwkv9 in other implementations") and view.text[0].startswith("rwkv9 as a whole")


def test_the_page_says_who_computed_a_model_that_another_runtime_ran() -> None:
    made = [test_page.record("rwkv4-169m"), test_page.record("pythia-160m")]
    (view,) = inference.views(read(made))
    assert any(text.startswith("RWKV runs in this suite's own code, the others in transformers'") for text in view.text)
    (view,) = inference.views(read([*made, altered(made[0], runtime="transformers", label="RWKV-4 there")]))
    assert "Runtimes (native is this suite's own code): RWKV-4 169M: native" in view.text[0]
    assert "RWKV-4 there: transformers" in view.text[0]
