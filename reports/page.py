"""Records -> a folder with one self-contained page, and every table and figure as files."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup

from reports import labels
from reports.draw.figure import Picture
from reports.draw.table import Table
from reports.published import paper
from reports.records.record import Record
from reports.records.store import Store
from reports.results import key
from reports.sentences import of_page
from reports.views import pairs, table
from reports.views.view import View
from rwkv_core.errors import BadInput
from rwkv_core.files import write_atomically

TEMPLATES = Path(__file__).parent / "templates"


def write(stores: Sequence[Path], out: Path, versions: Mapping[str, int] | None = None) -> Iterator[str]:
    """Write index.html, report.md, rows.csv, tables/ and figures/; yield the lines to print at the end.

    versions: the present ones of experiments, beside which older records are shown as such. Raises BadInput where a
    store is missing, empty or from a newer schema, or `out` cannot be written.
    """
    records, warnings = read(stores)
    yield from warnings
    results = table.read(records, versions)
    shown = list(table.views(results))
    images = {picture.name: _write_picture(out, picture) for view in shown for picture in view.pictures}
    for view in shown:
        for one in view.tables:
            _write_table(out, one)
    every = pd.DataFrame([*results.rows, *paper.rows()]).drop(columns=["samples", "apart"], errors="ignore")
    write_atomically(out / "rows.csv", every.to_csv(index=False))
    sentences = of_page([view.comparisons for view in shown])
    write_atomically(out / "report.md", _markdown(shown, sentences))
    write_atomically(out / "index.html", _html(shown, sentences, images, records))
    for view in shown:
        if view.printed is not None:
            yield from printed(view.printed)
    yield f"page: {out / 'index.html'}"


def compare(stores: Sequence[Path], first: str, second: str) -> Iterator[str]:
    """Lines that compare two models item by item. Raises BadInput as `write` does, and where nothing compares."""
    records, warnings = read(stores)
    yield from warnings
    yield from printed(pairs.comparison(table.read(records), first, second))


def printed(shown: Table) -> Iterator[str]:
    """A table for the terminal, and its note."""
    yield shown.frame.to_string(index=False)
    yield shown.note


def read(stores: Sequence[Path]) -> tuple[list[Record], list[str]]:
    """The records of several stores in the order of the page, and warnings; raises BadInput as `write` does."""
    records: dict[tuple[str, str], Record] = {}
    warnings: list[str] = []
    for folder in stores:
        if not folder.is_dir():
            raise BadInput(f"{folder}: no such folder of records; `rwkv-bench run` makes one under results/")
        whole, damaged = Store(folder).read(items=True)
        warnings += damaged.values()
        for record in whole:
            here = key(record)
            if here in records:
                warnings.append(
                    f"{record.id}: in several stores; one that is ok goes before, then a disturbed one, then the later"
                )
            if here not in records or record.worth >= records[here].worth:
                records[here] = record
    if not records and warnings:
        raise BadInput(f"no whole record among {len(warnings)}, the first: {warnings[0]}")
    if not records:
        raise BadInput(
            f"{', '.join(map(str, stores))}: no records in there; `rwkv-bench run configs/pocket.yaml` makes some"
        )
    return sorted(labels.current(records.values()), key=_place), warnings


def _place(record: Record) -> tuple[str, ...]:
    """Where a record stands among the others, whatever its id: by experiment and model, then by what differs from the
    defaults, in the experiment's order; by its protocol in any case, which has a section of its own.
    """
    cell, model = record.cell, record.cell.model
    params = [f"{k}={v}" for k, v in cell.params.items() if k in cell.differing or k == "protocol"]
    words = [cell.experiment, *([model.name] if model else []), cell.device, cell.dtype, *params, str(cell.threads)]
    return "_".join(words), model.weights if model else "", record.machine, record.id


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


def _html(shown: Sequence[View], sentences: list[list[str]], images: dict[str, str], records: Sequence[Record]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    measured = sum(record.measured for record in records)
    return environment.get_template("page.html.j2").render(
        sections=list(zip(shown, sentences, strict=True)),
        images=images,
        measured=measured,
        disturbed=sum(record.status == "disturbed" for record in records),
        unmeasured=len(records) - measured,
        html=lambda table: Markup(table.html()),  # pandas has escaped it
    )


def _markdown(shown: Sequence[View], sentences: list[list[str]]) -> str:
    parts = ["# RWKV or a Transformer?\n"]
    for view, of_view in zip(shown, sentences, strict=True):
        parts.append(f"## {view.title}\n")
        parts += [f"- {sentence}\n" for sentence in of_view]
        parts += [f"{paragraph}\n" for paragraph in view.text]
        parts += [table.markdown() for table in view.tables]
        parts += [f"![{picture.title}](figures/{picture.name}.png)\n" for picture in view.pictures]
    return "\n".join(parts)
