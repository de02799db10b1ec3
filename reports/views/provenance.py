"""The section that says on what and from which code was measured, and whether disturbances could be seen."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from reports.draw.table import Table
from reports.records import origin
from reports.records.record import Record
from reports.results import Results
from reports.views.view import Section, View


def views(results: Results) -> Iterator[View]:
    """One line for each different machine, commit and set of libraries, with what was measured there."""
    lines: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in results.records:
        lines[_line(record.provenance)].append(record)
    names = ["CPU", "cores", "memory", "GPU", "platform", "Python", "libraries", "code"]
    names += ["experiments and versions", "measured", "cells"]
    origins = [(line, origin.of(records, results.versions)) for line, records in lines.items()]
    frame = pd.DataFrame([[*line, one.experiments, one.days, one.records] for line, one in origins], columns=names)
    table = Table("provenance", "Machines, libraries and code", frame)
    whole = [origin.of(results.records, results.versions).sentences] if results.records else []
    yield View("provenance", "Measured on", [*whole, *_watched(results.records)], tables=[table])


def _line(p: Mapping[str, Any]) -> tuple[str, ...]:
    versions = ", ".join(f"{name} {version}" for name, version in p["versions"].items())
    commit = f"{(p['commit'] or 'no checkout')[:12]}{', from a changed tree' if p['dirty'] else ''}"
    memory = f"{p['memory_bytes'] / 2**30:.0f} GiB" if p["memory_bytes"] else "unknown"
    gpus = ", ".join(gpu["name"] for gpu in p["gpus"]) or "none"
    return p["cpu"], str(p["cores"]), memory, gpus, p["platform"], p["python"], versions, commit


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


SECTION = Section(views)
