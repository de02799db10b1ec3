"""The sections of the page in their order: the one table of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from reports.records.record import Record
from reports.results import Results
from reports.views import (
    batches,
    capacity,
    decode,
    encoders,
    gains,
    harness,
    inference,
    learning,
    lra,
    needles,
    precision,
    prompts,
    provenance,
    races,
    recall,
    refusals,
    sources,
    summary,
    training,
    zeroshot,
)
from reports.views.view import View

VIEWS = (
    summary.SECTION,
    decode.SECTION,
    gains.SECTION,
    batches.SECTION,
    capacity.SECTION,
    precision.SECTION,
    inference.SECTION,
    races.SECTION,
    zeroshot.SECTION,
    harness.SECTION,
    prompts.SECTION,
    recall.SECTION,
    needles.SECTION,
    lra.SECTION,
    encoders.SECTION,
    training.SECTION,
    learning.SECTION,
    refusals.SECTION,
    sources.SECTION,
    provenance.SECTION,
)
READINGS = {name: reading for section in VIEWS for name, reading in section.readings.items()}  # by experiment


def read(records: Iterable[Record], versions: Mapping[str, int] | None = None) -> Results:
    """Records of experiments that have a section. Raises KeyError where one of another was measured.

    versions: the present ones of experiments, beside which older records are shown as such.
    """
    return Results(records, READINGS, versions or {})


def views(results: Results) -> Iterator[View]:
    """All that there is to show."""
    for section in VIEWS:
        yield from section.views(results)
