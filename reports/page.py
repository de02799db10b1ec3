"""Records -> a folder with one self-contained page, and every table and figure as files."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from reports import labels, rows
from reports.draw.figure import Picture
from reports.draw.table import Table
from reports.published import paper
from reports.records.record import Record
from reports.records.store import Store
from reports.views import (
    contexts,
    encoders,
    inference,
    learning,
    lra,
    needles,
    prompts,
    races,
    recall,
    refusals,
    sources,
    zeroshot,
)
from reports.views.view import View
from rwkv_core.errors import BadInput
from rwkv_core.files import write_atomically

TEMPLATES = Path(__file__).parent / "templates"


def write(stores: Sequence[Path], out: Path) -> Iterator[str]:
    """Write index.html, report.md, rows.csv, tables/ and figures/; yield the lines to print at the end.

    Raises BadInput where a store is missing, empty or from a newer schema, or `out` cannot be written.
    """
    records, warnings = _read(stores)
    yield from warnings
    measured = rows.from_records(records)
    summary = inference.summary(measured)
    shown = [view for view in _views(records, measured, summary) if view is not None]
    images = {picture.name: _write_picture(out, picture) for view in shown for picture in view.pictures}
    for view in shown:
        for table in view.tables:
            _write_table(out, table)
    every = pd.DataFrame([*measured, *paper.rows(), *paper.zero_shot_rows(zeroshot.tasks())]).drop(
        columns=["samples", "apart"], errors="ignore"
    )
    write_atomically(out / "rows.csv", every.to_csv(index=False))
    write_atomically(out / "report.md", _markdown(shown))
    write_atomically(out / "index.html", _html(shown, images, records))
    for short in (summary, races.targets(measured)):
        if short is not None:
            yield short.frame.to_string(index=False)
            yield short.note
    yield f"page: {out / 'index.html'}"


def compare(stores: Sequence[Path], first: str, second: str) -> Iterator[str]:
    """Lines that compare two models item by item. Raises BadInput as `write` does, and where nothing compares."""
    records, warnings = _read(stores)
    yield from warnings
    table = zeroshot.comparison(records, first, second)
    yield table.frame.to_string(index=False)
    yield table.note


def _read(stores: Sequence[Path]) -> tuple[list[Record], list[str]]:
    records: dict[tuple[str, str], Record] = {}
    warnings: list[str] = []
    for folder in stores:
        if not folder.is_dir():
            raise BadInput(f"{folder}: no such folder of records; `rwkv-bench run` makes one under results/")
        found, damaged = Store(folder).read(items=True)
        warnings += damaged.values()
        for record in found.values():  # the same cell on another machine is another number
            key = record.id, record.provenance["machine"]
            if key in records:
                warnings.append(
                    f"{record.id}: in several stores; one that is ok goes before, then a disturbed one, then the later"
                )
            if key not in records or _worth(record) >= _worth(records[key]):
                records[key] = record
    if not records and warnings:
        raise BadInput(f"no whole record among {len(warnings)}, the first: {warnings[0]}")
    if not records:
        raise BadInput(
            f"{', '.join(map(str, stores))}: no records in there; `rwkv-bench run configs/pocket.yaml` makes some"
        )
    return labels.current(records.values()), warnings


def _worth(record: Record) -> int:
    """Of two records of one cell the one that is worth more is shown."""
    return ("disturbed", "ok").index(record.status) + 1 if record.measured else 0


def _views(records: Sequence[Record], measured: list[rows.Row], summary: Table | None) -> Iterator[View | None]:
    if summary is not None:
        yield View("summary", "In short", tables=[summary])
    yield from inference.views(measured)
    yield from contexts.views(measured)
    yield from races.views(measured)
    yield from zeroshot.views(measured, records)
    yield from prompts.views(measured, records)
    yield from recall.views(measured)
    yield from needles.views(measured)
    yield from lra.views(measured)
    yield from encoders.views(measured)
    yield from learning.views(measured)
    yield refusals.not_measured(measured)
    yield sources.architectures()
    yield sources.complexity()
    yield sources.contradictions()
    yield _provenance(records)


def _provenance(records: Sequence[Record]) -> View:
    """On what: one line for each different machine, commit and set of libraries."""
    lines: Counter[tuple[str, ...]] = Counter()
    for record in records:
        p: dict[str, Any] = record.provenance
        versions = ", ".join(f"{name} {version}" for name, version in p["versions"].items())
        commit = f"{(p['commit'] or 'no checkout')[:12]}{' (changed)' if p['dirty'] else ''}"
        memory = f"{p['memory_bytes'] / 2**30:.0f} GiB" if p["memory_bytes"] else "unknown"
        gpus = ", ".join(gpu["name"] for gpu in p["gpus"]) or "none"
        lines[p["cpu"], str(p["cores"]), memory, gpus, p["platform"], p["python"], versions, commit] += 1
    names = ["CPU", "cores", "memory", "GPU", "platform", "Python", "libraries", "code"]
    frame = pd.DataFrame([[*line, count] for line, count in lines.items()], columns=[*names, "cells"])
    table = Table("provenance", "Machines, libraries and code", frame)
    return View("provenance", "Measured on", _watched(records), tables=[table])


def _watched(records: Sequence[Record]) -> list[str]:
    """Whether disturbances could have been seen where something was timed."""
    timed = [record for record in records if {"token_seconds", "seconds"} & record.samples.keys()]
    lacking = Counter(
        ", ".join(record.samples["disturbance"]["not_watched"]) if "disturbance" in record.samples else "everything"
        for record in timed
    )
    lines = [f"{count} without {what}" for what, count in sorted(lacking.items()) if what]
    whole = f"{lacking['']} of {len(timed)} timed cells were watched for disturbances"
    return ["; ".join([whole, *lines]) + "."] if timed else []


def _write_table(out: Path, table: Table) -> None:
    for suffix, text in (("csv", table.csv()), ("md", table.markdown()), ("tex", table.latex())):
        write_atomically(out / "tables" / f"{table.name}.{suffix}", text)


def _write_picture(out: Path, picture: Picture) -> str:
    """PNG and SVG files; returns the SVG as a data URL, so that the page needs no other file."""
    folder = out / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    figure = picture.draw()
    figure.savefig(folder / f".{picture.name}.png", dpi=160)
    (folder / f".{picture.name}.png").replace(folder / f"{picture.name}.png")
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    write_atomically(folder / f"{picture.name}.svg", text.getvalue())
    return "data:image/svg+xml;base64," + base64.b64encode(text.getvalue().encode()).decode()


def _html(shown: Sequence[View], images: dict[str, str], records: Sequence[Record]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    measured = sum(record.measured for record in records)
    return environment.get_template("page.html.j2").render(
        views=shown,
        images=images,
        measured=measured,
        disturbed=sum(record.status == "disturbed" for record in records),
        unmeasured=len(records) - measured,
        html=lambda table: Markup(table.html()),  # pandas has escaped it
    )


def _markdown(shown: Sequence[View]) -> str:
    parts = ["# RWKV or a Transformer?\n"]
    for view in shown:
        parts.append(f"## {view.title}\n")
        parts += [f"{paragraph}\n" for paragraph in view.text]
        parts += [table.markdown() for table in view.tables]
        parts += [f"![{picture.title}](figures/{picture.name}.png)\n" for picture in view.pictures]
    return "\n".join(parts)
