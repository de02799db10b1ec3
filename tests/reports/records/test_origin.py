"""What records are from, in words and in the table of the page."""

from __future__ import annotations

from typing import Any

import pytest

from reports.records import origin
from reports.records.record import Record
from reports.views import provenance
from reports.views.table import read
from tests import make

VERSIONS = {"kernels": 3, "peers": 1}


def record(experiment: str = "kernels", version: int = 3, **facts: Any) -> Record:
    facts = {"platform": "Linux-x86_64", "cpu": "CPU (family 25, model 1)", **facts}
    return make.record(make.cell(experiment, None, {}, version=version), status="unsupported", error="so", **facts)


MIXED = [
    record(measured_at="2026-01-03T10:00:00+00:00"),
    record(commit="1" * 40, measured_at="2026-01-02T23:00:00+00:00"),
    record(version=1, dirty=True),
    record(version=2, dirty=True, cpu="CPU"),
    record("peers", 1, commit=None, dirty=None, machine="Other CPU"),
    record("new", 1, cpu="aarch64", platform="Linux-aarch64"),
]


@pytest.mark.parametrize(
    ("records", "said"),
    [
        (
            MIXED,
            "6 records: 3 from committed code at 2 commits, 2 from code with uncommitted changes, "
            "1 from code that no commit names; 2 are of an older version of their experiment (kernels 1, now 3; "
            "kernels 2, now 3). Measured from 2026-01-01 to 2026-01-03 on Other CPU; Test CPU <2 cores>. "
            "1 name the processor by its brand alone, which several share.",
        ),
        (
            MIXED[2:3],
            "1 record: 1 from code with uncommitted changes; 1 is of an older version of its experiment "
            "(kernels 1, now 3). Measured on 2026-01-01 on Test CPU <2 cores>.",
        ),
        (MIXED[:1], "1 record: 1 from committed code at 1 commit. Measured on 2026-01-03 on Test CPU <2 cores>."),
    ],
)
def test_what_records_are_from_is_said_in_words(records: list[Record], said: str) -> None:
    assert origin.of(records, VERSIONS).sentences == said


def test_what_two_sides_differ_in_is_said_and_what_they_share() -> None:
    def trained(**facts: Any) -> Record:
        return make.record(make.cell("inference", "rwkv4-169m", {}), **facts)

    assert origin.beside(MIXED[:1], MIXED[:1]) == (
        "A and B differ in nothing. Both: commit 000000000000; machine Test CPU <2 cores>."
    )
    versions = {"torch": "2.14.0", "triton": "3.7.1"}
    changed = {"dirty": True, "attention": "eager", "weights_fingerprint": "abc", "gpus": [{"driver": "570"}]}
    assert origin.beside([trained()], [trained(versions=versions, machine="Other", **changed)]) == (
        "A and B differ in commit 000000000000 (A), 000000000000 with changes (B); machine Test CPU <2 cores> (A), "
        "Other (B); torch 2.13.0 (A), 2.14.0 (B); attention of rwkv4-169m sdpa (A), eager (B); driver none (A), "
        "570 (B); triton none (A), 3.7.1 (B); weights of rwkv4-169m none (A), abc (B)."
    )
    assert origin.beside(MIXED[:1], MIXED) == (
        "A and B differ in commit 000000000000 (A), 000000000000 and 000000000000 with changes and 2 more (B); machine "
        "Test CPU <2 cores> (A), Other CPU and Test CPU <2 cores> (B); platform Linux-x86_64 (A), Linux-aarch64 and "
        "Linux-x86_64 (B); version of kernels 3 (A), 1 and 2 and 1 more (B); version of peers none (A), 1 (B); "
        "version of new none (A), 1 (B)."
    )


def test_a_line_of_the_page_marks_older_versions_and_changed_trees() -> None:
    (view,) = provenance.views(read(MIXED, VERSIONS))
    assert view.text[0] == origin.of(MIXED, VERSIONS).sentences
    lines = view.tables[0].frame.set_index("code")[["experiments and versions", "measured", "cells"]]
    changed = lines.loc[f"{'0' * 12}, from a changed tree"]
    assert changed.values.tolist() == [
        ["kernels 1, now 3: 1", "2026-01-01", 1],
        ["kernels 2, now 3: 1", "2026-01-01", 1],  # of another processor
    ]
    assert lines.loc["1" * 12].tolist() == ["kernels 3: 1", "2026-01-02", 1]
    assert lines.loc["no checkout"].tolist() == ["peers 1: 1", "2026-01-01", 1]


def test_without_the_present_versions_nothing_is_called_old() -> None:
    assert "older" not in origin.of(MIXED, {}).sentences
    (view,) = provenance.views(read(MIXED))
    assert "now" not in view.tables[0].csv()
