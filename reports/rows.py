"""Records -> rows: one flat dict for each value, statistics derived here from the raw samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from reports import labels
from reports.reading import Reading, Row
from reports.records.record import Record

OUTDATED = "measured by an older version of this experiment, with other numbers; `rwkv-bench run` measures it again"


def from_records(records: Iterable[Record], readings: Mapping[str, Reading]) -> list[Row]:
    """Rows of every record: what was run, and one row for each value; one that is not ok has a row with its status.

    readings: of each experiment by its name. Raises KeyError where one that was measured has none.
    """
    rows: list[Row] = []
    records = list(records)
    bases = [_base(record) for record in records]
    read = [record.measured and not _outdated(record, readings) for record in records]
    labels.tell_apart([(r, b) for r, b, is_read in zip(records, bases, read, strict=True) if is_read], readings)
    for record, base, is_read in zip(records, bases, read, strict=True):
        if record.status != "ok":
            rows.append({**base, "metric": "status", "error": record.error})
        if is_read:
            rows += [{**base, **value} for value in readings[record.cell.experiment].rows(record)]
        elif record.measured:
            rows.append({**base, "metric": "status", "status": "outdated", "error": OUTDATED})
    return rows


def _outdated(record: Record, readings: Mapping[str, Reading]) -> bool:
    return bool(record.cell.version < readings[record.cell.experiment].oldest)


def _base(record: Record) -> Row:
    cell, model = record.cell, record.cell.model
    variant = labels.variant(record)
    return {
        "source": "measured",
        "cell": record.id,
        "measured_at": record.provenance["measured_at"],
        "status": record.status,
        "disturbed": record.status == "disturbed",
        "experiment": cell.experiment,
        "model": model.name if model else None,
        "label": (model.label if model else "-") + variant,
        "variant": variant,
        "at_best": not variant,
        "family": model.family if model else None,
        "weights": labels.weights(cell),
        "parameters": record.metrics.get("parameters", model.parameters if model else None),
        "device": cell.device,
        "dtype": cell.dtype,
        "machine": record.provenance["machine"],
        "threads": record.provenance.get("threads"),
        "attention": record.provenance.get("attention"),
        "attention_setting": model.attention if model else None,
        "runtime": model.runtime if model else None,
        "text": str(cell.params.get("text")),
        **{
            key: cell.params.get(key)
            for key in ("task", "protocol", "batch", "prompt_tokens", "new_tokens", "schedule", "mixer", "direction")
        },
    }
