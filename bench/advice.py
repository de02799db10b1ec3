"""The records that advice is taken from: of this machine, or of the gallery's where it has none."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

import configs
from bench import run
from bench.matrix import DEVICES
from reports import advice, page
from reports.draw import numbers
from reports.draw.table import Table
from reports.published import paper
from reports.records import provenance
from reports.views import scores, table
from reports.views.processes import pooled
from rwkv_core.errors import BadInput, did_you_mean
from rwkv_core.models import ROOT

GALLERY = ROOT / "reports" / "gallery"
NEAR = 0.15  # published sizes are rounded, and may leave out embeddings
UNITS = {"MB": 1e6, "GB": 1e9, "TB": 1e12, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def lines(
    context: int, batch: int, memory: str, device: str, stores: Sequence[Path], quality: Sequence[Path]
) -> Iterator[str]:
    """What to print. Raises BadInput for a memory without a unit, a device that never is, and where nothing of the
    experiment decode was measured on it.
    """
    if device not in DEVICES:
        raise BadInput(f"unknown device {device!r}{did_you_mean(device, DEVICES)}")
    question = advice.Question(context, batch, _bytes(memory))
    frame, where = _measured(stores, device)
    yield where
    known = _scored(quality) if quality else _published(frame)
    for part in advice.answer(frame, question, known):
        yield from page.printed(part) if isinstance(part, Table) else [part]


def _bytes(text: str) -> float:
    parsed = re.fullmatch(rf"([0-9]+(?:\.[0-9]+)?) ?({'|'.join(UNITS)})", text)
    if not parsed:
        raise BadInput(f"--memory {text!r}: write a number and one of {', '.join(UNITS)}, as in 16GB")
    return float(parsed[1]) * UNITS[parsed[2]]


def _measured(stores: Sequence[Path], device: str) -> tuple[pd.DataFrame, str]:
    """Rows of the experiment decode of one machine, and a line that says whose."""
    here = provenance.machine_name(run.accelerator(device))
    folders = list(stores) or [path for path in sorted(Path("results").glob("*")) if path.is_dir()]
    frame = _decode(folders, device)
    if not stores and (frame.empty or not (frame.machine == here).any()):
        frame = _decode(sorted(GALLERY.glob("*/records")), device)
    if frame.empty:
        raise BadInput(
            f"no records of the experiment decode on {device}; `rwkv-bench run configs/inference-cpu.yaml` makes some"
        )
    machine = here if (frame.machine == here).any() else frame.machine.iloc[-1]
    where = "this machine" if machine == here else f"another machine; `rwkv-bench run` measures this one ({here})"
    return frame[frame.machine == machine], f"From records of {machine}: {where}."


def _decode(folders: Sequence[Path], device: str) -> pd.DataFrame:
    """Pooled rows that nothing disturbed; none where there are no records."""
    if not folders:
        return pd.DataFrame()
    frame = pooled(table.read(page.read(folders)[0]).frame("decode"))
    return frame if frame.empty else frame[(frame.device == device) & ~frame.disturbed & frame.at_best]


def _scored(stores: Sequence[Path]) -> dict[str, str]:
    """The mean of the twelve tasks by a model's label, of those that were scored on all of them."""
    frame, tasks = table.read(page.read(stores)[0]).frame("zeroshot"), configs.read("tasks")
    means = {} if frame.empty else {str(label): scores.average(one, tasks) for label, one in frame.groupby("label")}
    return {label: f"{numbers.percent(*mean)} %" for label, mean in means.items() if mean}


def _published(frame: pd.DataFrame) -> dict[str, str]:
    """The mean of what was published of the twelve tasks, by a measured model's label."""
    twelve = {task: entry["metric"] for task, entry in configs.read("tasks").items() if entry.get("twelve")}
    rows = pd.DataFrame(paper.zero_shot_rows())
    rows = rows[rows.metric == rows.task.map(twelve)]
    means = {}
    for one in frame.drop_duplicates("label").to_dict("records"):
        near = rows[(rows.family == one["family"]) & (abs(rows.parameters / one["parameters"] - 1) < NEAR)]
        if len(near):
            means[str(one["label"])] = f"{numbers.percent(near.value.mean())} % ({len(near)} tasks, published)"
    return means
