"""The section that says on what was measured, and whether disturbances could be seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from reports.draw.table import Table
from reports.records.record import Record
from reports.results import Results
from reports.views.view import Section, View


def views(results: Results) -> Iterator[View]:
    """One line for each different machine, commit and set of libraries."""
    lines: Counter[tuple[str, ...]] = Counter()
    for record in results.records:
        p: dict[str, Any] = record.provenance
        versions = ", ".join(f"{name} {version}" for name, version in p["versions"].items())
        commit = f"{(p['commit'] or 'no checkout')[:12]}{' (changed)' if p['dirty'] else ''}"
        memory = f"{p['memory_bytes'] / 2**30:.0f} GiB" if p["memory_bytes"] else "unknown"
        gpus = ", ".join(gpu["name"] for gpu in p["gpus"]) or "none"
        lines[p["cpu"], str(p["cores"]), memory, gpus, p["platform"], p["python"], versions, commit] += 1
    names = ["CPU", "cores", "memory", "GPU", "platform", "Python", "libraries", "code"]
    frame = pd.DataFrame([[*line, count] for line, count in lines.items()], columns=[*names, "cells"])
    table = Table("provenance", "Machines, libraries and code", frame)
    yield View("provenance", "Measured on", _watched(results.records), tables=[table])


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
