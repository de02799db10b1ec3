"""What tells the cells of one label apart is said behind it, so that a row or a line is one model, measured one way."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reports.reading import Reading
from reports.records.cell import Cell
from reports.records.record import Record

OF_NAME = ("repo", "revision", "context_length")  # what a model's name stands for
OF_TASK = {"data"}  # is another for each task anyway
WRITTEN = {"work", "out"}
SECTION = ("experiment", "label", "weights", "machine", "device", "dtype", "text", "schedule", "protocol")
MODEL = ("name", "weights", *OF_NAME, "runtime")
SAMPLE = ("docs", "data")


def variant(record: Record) -> str:
    """What a label says of a model that is not at its best: by choice, or because its layers allow no better."""
    if (model := record.cell.model) is None:
        return ""
    copied = "dynamic" in (model.cache, record.provenance.get("cache"))
    said = {
        "eager": model.attention == "eager",
        "transformers' attention": model.attention == "transformers",
        "DynamicCache": copied,
        "no graph": record.metrics.get("graphed") is False,  # peers have a list of them
    }
    return "".join(f" ({text})" for text, holds in said.items() if holds)


def weights(cell: Cell) -> str:
    """random, fresh (the training is the measurement), pocket (trained and scored on the pocket world), pocket-trained
    (scored elsewhere), or trained.
    """
    if cell.model is None or cell.model.fresh:
        return "fresh"
    if cell.model.seed is not None:
        return "random"
    if cell.model.trained_on != "pocket":
        return "trained"
    data = cell.params.get("data") or cell.params.get("text") or cell.params.get("task")
    return "pocket" if str(data).startswith("pocket") else "pocket-trained"


def tell_apart(measured: Sequence[tuple[Record, dict[str, Any]]], readings: Mapping[str, Reading]) -> None:
    """Records with their rows' shared columns, to whose label is added what tells the record from others of that label
    in the same table; also to `variant`, the label without the name of the model. `sample`: what of it is of the items.

    readings: of each experiment by its name.
    """
    sections: dict[Hashable, list[tuple[Record, dict[str, Any]]]] = defaultdict(list)
    for record, columns in measured:
        sections[tuple(columns[key] for key in SECTION)].append((record, columns))
    for several in sections.values():
        reading = readings[several[0][1]["experiment"]]
        for (record, columns), parts in zip(several, _parts([record for record, _ in several], reading), strict=True):
            if "docs" in parts:
                parts["docs"] = f"{record.cell.params['docs'] or 'all'} {reading.items}"
            differences = _behind(parts.values())
            columns["sample"] = _behind(parts[key] for key in SAMPLE if key in parts)
            columns["variant"] += differences
            columns["label"] += differences


def _parts(records: Sequence[Record], reading: Reading) -> list[dict[str, str]]:
    """For each record of one experiment the facts that are not the same in all of them."""
    facts = [_facts(record, reading) for record in records]
    parts_of: list[dict[str, str]] = [{} for _ in records]
    for key in dict.fromkeys(key for one in facts for key in one):
        compared: dict[Hashable, list[int]] = defaultdict(list)
        for i, record in enumerate(records):
            compared[_compared_within(key, record, reading)].append(i)
        for places in compared.values():
            values = [facts[i].get(key) for i in places]
            if len({repr(value) for value in values if value is not None}) > 1:
                for i, text in zip(places, _texts(key, values), strict=True):
                    parts_of[i] |= {key: text} if text else {}
    named = any("name" in parts for parts in parts_of)
    return [{key: text for key, text in parts.items() if not (named and key in OF_NAME)} for parts in parts_of]


def current(records: Iterable[Record]) -> list[Record]:
    """Without those that a later version of their experiment has measured anew, on the same machine."""
    records = list(records)
    versions: dict[Hashable, list[Record]] = defaultdict(list)
    for record in records:
        versions[_place(record)].append(record)
    outdated = {
        id(record)
        for several in versions.values()
        if len({record.cell.version for record in several}) > 1
        for record in several
        if any(_replaces(later, record) for later in several)
    }
    return [record for record in records if id(record) not in outdated]


def _place(record: Record) -> Hashable:
    cell = record.cell
    model = [getattr(cell.model, key, None) for key in ("name", "weights", "attention", "cache", "runtime")]
    params = [str(cell.params.get(key)) for key in ("task", "protocol", "order", "length", "text")]
    return (cell.experiment, cell.device, cell.dtype, record.provenance["machine"], *model, *params)


def _replaces(later: Record, earlier: Record) -> bool:
    """Whether `later` is the same cell by a later version; parameters that `earlier` did not have do not count."""
    new, old = later.cell, earlier.cell
    if not later.final or new.version <= old.version or new.threads != old.threads:
        return False
    return all(new.params.get(key, value) == value for key, value in old.params.items())


def _compared_within(key: str, record: Record, reading: Reading) -> Hashable:
    """Cells in which a fact is compared: all of the section, or those of one line where a line has one cell."""
    of_line = reading.line_of_cell and key == "docs"
    params = record.cell.params
    return tuple(params.get(name) for name in ("task", "way", "length")) if of_line or key in OF_TASK else ()


def _facts(record: Record, reading: Reading) -> dict[str, Any]:
    cell = record.cell
    facts = {key: getattr(cell.model, key, None) for key in MODEL}
    if facts["weights"] != "pretrained":  # they come from no repository
        facts |= {"repo": None, "revision": None}
    if reading.seeds_pooled:
        facts["weights"] = str(facts["weights"]).partition(":")[0]
    if reading.apart is not None:
        apart = {*reading.apart, *WRITTEN}
        facts |= {key: value for key, value in [*cell.params.items(), ("threads", cell.threads)] if key not in apart}
    return {**facts, "version": cell.version}


def _texts(key: str, values: Sequence[Any]) -> list[str]:
    """The values with their name; contents by as few digits as tell them apart."""
    plain = [("yes" if value else "no") if isinstance(value, bool) else Path(str(value)).name for value in values]
    short = [re.sub(r"^(?:file:|content:)?((?:hub:|local:)?[0-9a-f]{6})[0-9a-f]{6,}$", r"\1", text) for text in plain]
    shown = short if len(set(short)) == len(set(plain)) else plain
    name = "" if key == "name" else f"{key.replace('_', ' ')} "
    return ["" if value is None else f"{name}{text}" for value, text in zip(values, shown, strict=True)]


def _behind(parts: Iterable[str]) -> str:
    joined = ", ".join(parts)
    return f" ({joined})" if joined else ""
