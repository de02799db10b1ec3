"""Views of generation: the sections, their tables, and the sentence that says who is faster."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import pandas as pd

from reports.draw import numbers
from reports.draw.table import Table
from reports.published import paper
from reports.reading import Kind, Reading, Row
from reports.records.record import Record
from reports.results import Results
from reports.sentences import SIZE, TIME, Comparison, beyond_noise, of_bytes
from reports.statistics.bands import spread
from reports.views import curves
from reports.views.families import compared, ours
from reports.views.processes import FEW, ONE_PROCESS, WHERE, pooled
from reports.views.view import DISTURBED, Section, View, disturbed_note, eager_note, parts, timed
from rwkv_core import dtypes

OURS = (
    "RWKV runs in this suite's own code, the others in transformers', whose work in Python between two tokens is part "
    "of their time; on a fast device and at small sizes it can be most of it. On a CPU products of a few vectors "
    "with the matrices of linear layers are this suite's for all of them."
)
DEVICE_MEMORY = {
    "resident_growth_bytes": "resident growth",
    "cuda_peak_bytes": "CUDA allocated, peak",
    "cuda_reserved_bytes": "CUDA reserved, all",
    "nvml_process_bytes": "NVML, all",
}
UNLIKE = 1.1  # in bytes of weights
NO_CACHE = (
    "Here Transformers ran without a cache: the whole sequence again for every token, as in the public scripts "
    "that likely made the paper's figures, while RWKV carried its state. Their products are of many vectors at once, "
    "by torch; RWKV's are of one, on a CPU by this suite's kernel. Nobody generates text this way; it is "
    "shown only to stand beside the published curves. The protocol `fair` is the comparison."
)


def rows(record: Record) -> Iterator[Row]:
    """Seconds with their spread over the repeats: until each token, of each token, of the first, percentiles; bytes by
    tokens of context, measured and by formula; bytes of the weights, and those that a token reads.
    """
    for row in _timed_rows(record):
        yield {**row, "process": record.cell.params.get("process", 1)}  # an older cell has no other


def _timed_rows(record: Record) -> Iterator[Row]:
    runs: list[list[float]] = record.samples["token_seconds"]
    for token, seconds in enumerate(zip(*runs, strict=True), 1):
        yield spread("cumulative_s", seconds, tokens=token)
    steps = [[after - before for before, after in itertools.pairwise(run)] for run in runs]
    for token, seconds in enumerate(zip(*steps, strict=True), 2):
        yield spread("step_s", seconds, tokens=token)
    yield spread("first_token_s", [run[0] for run in runs])
    cuts = [statistics.quantiles(run, n=100, method="inclusive") for run in steps]
    for percent in (50, 90, 99):
        yield spread(f"p{percent}_s", [cut[percent - 1] for cut in cuts])
    batch = record.cell.params["batch"]
    yield spread("tokens_per_s", [batch * len(step) / sum(step) for step in steps])

    spec = record.cell.model
    assert spec is not None
    kind = (record.cell.dtype, record.cell.device)
    for point in record.samples["memory"]:
        context = point["context_tokens"]
        # what the figures call memory: the allocator's peak on a GPU, live tensors on a CPU
        values = {**point, "peak_bytes": point.get("cuda_peak_bytes", point["peak_live_bytes"])}
        del values["context_tokens"]
        yield from ({"metric": metric, "value": value, "tokens": context} for metric, value in values.items())
    if why := record.metrics.get("resident_growth_missing"):
        yield {"metric": "resident_growth_bytes", "value": None, "tokens": context, "why": why}
    if "state_bytes" in record.metrics:
        lengths = {point["context_tokens"] for point in record.samples["memory"]}
        for context in sorted(lengths | {2**i for i in range(4, 14)}):  # by formula further than measured, to 8192
            value = spec.state_bytes(context, dtypes.itemsize(*kind), batch)
            yield {"metric": "state_formula_bytes", "value": value, "tokens": context}
    stored = record.metrics["parameter_bytes"]
    yield {"metric": "parameter_bytes", "value": stored}
    yield {"metric": "read_bytes", "value": stored - spec.lookup_bytes(*kind)}
    if record.metrics.get("disagreement") is not None:
        yield {"metric": "disagreement", "value": record.metrics["disagreement"]}


def views(results: Results) -> Iterator[View]:
    """Every view of generation for each machine, device and type that was measured."""
    frame = pooled(results.frame("inference"))
    if frame.empty:
        return
    published = pd.DataFrame(paper.generation_rows())
    for number, _, part in parts(frame, WHERE):
        yield from _one_machine(longest(part), published, number)


def _one_machine(part: pd.DataFrame, published: pd.DataFrame, number: str) -> Iterator[View]:
    first = part.iloc[0]
    on = (
        f"{first.machine} · {first.device} · {first['dtype']} · {numbers.count(first.threads)} threads · "
        f"batch {first.batch} · prompt of {first.prompt_tokens} tokens · {first.weights} weights"
    )
    for protocol in curves.PROTOCOLS:
        chosen = part[part.protocol == protocol]
        if chosen.empty:
            continue
        beside = published if protocol == "paper" else published.head(0)  # the published curves are of that protocol
        name = f"{protocol}{number}"
        footer = f"{on} · median of {chosen.repeats.max():.0f} runs"
        pictures = [
            curves.cumulative(chosen, beside, name, footer),
            *([curves.latency(chosen, name, footer)] if protocol == "fair" else []),
            curves.against_parameters(chosen, beside, name, footer, "time"),
            curves.against_parameters(chosen, beside, name, footer, "memory"),
            *([curves.state(chosen, name, footer)] if protocol == "fair" else []),
        ]
        tables = [_speed(chosen, name), _memory(chosen, name)]
        text = [*([NO_CACHE] if protocol == "paper" else _not_compared(chosen)), _runtimes(chosen), f"{footer}."]
        title = f"Generation, {first.machine}, {first.device} {first['dtype']}: {curves.PROTOCOLS[protocol]}"
        tested = list(comparisons(chosen)) if protocol == "fair" else []
        yield View(f"generation-{name}", title, text, tables, pictures, comparisons=tested)


def _runtimes(chosen: pd.DataFrame) -> str:
    """Who computed the models."""
    by_label = chosen.drop_duplicates("label")
    usual = by_label.family.map(ours).map({True: "native", False: "transformers"})
    if (by_label.runtime == usual).all():
        return OURS
    named = "; ".join(f"{row.label}: {row.runtime}" for row in by_label.itertuples())
    return f"Runtimes (native is this suite's own code): {named}."


def comparisons(chosen: pd.DataFrame) -> Iterator[Comparison]:
    """Who is faster and who needs less, class by class; a model that was also measured at its best is compared as that,
    a disturbed one with nothing.
    """
    best = chosen.model[chosen.at_best]  # where that is disturbed, no variant stands for it
    for name, part in curves.classes(chosen[~chosen.disturbed & (chosen.at_best | ~chosen.model.isin(best))]):
        read = part[part.metric == "read_bytes"].drop_duplicates("label").set_index("label").value
        for metric, quantity, compare in (
            ("cumulative_s", "time of", _times),
            ("state_bytes", "cache or state at", _bytes),
        ):
            tokens = curves.common_tokens(part, metric)
            at = part[(part.metric == metric) & (part.tokens == tokens)]
            models = at.assign(read_bytes=at.label.map(read)).to_dict("records")
            for one, other in itertools.permutations(models, 2):
                if compared(str(one["family"]), str(other["family"])):
                    yield compare(f"{one['label']} ({name}), {quantity} {tokens} tokens", one, other)


def _times(heading: str, one: Mapping[Hashable, Any], other: Mapping[Hashable, Any]) -> Comparison:
    """The ratio of the medians, and what the extremes of both sides allow."""
    ratio, low, high = one["value"] / other["value"], one["low"] / other["high"], one["high"] / other["low"]
    few = min(one["processes"], other["processes"]) < FEW
    size = f"{numbers.spread(ratio, low, high, numbers.ratio)} x its time"
    read = one["read_bytes"] / other["read_bytes"]
    if not 1 / UNLIKE < read < UNLIKE:
        size += f", reading {numbers.ratio(read)} x its bytes of weights a token"
    caution = ONE_PROCESS if few else ""
    return Comparison(heading, TIME, other["label"], 1 - ratio, size, apart=beyond_noise(low, high), caution=caution)


def _bytes(heading: str, one: Mapping[Hashable, Any], other: Mapping[Hashable, Any]) -> Comparison:
    return of_bytes(heading, SIZE, other["label"], one["value"], other["value"])


def _not_compared(chosen: pd.DataFrame) -> list[str]:
    disturbed = chosen[chosen.disturbed].label.unique()
    return [f"Not compared, since its measurement was disturbed: {', '.join(disturbed)}."] if len(disturbed) else []


class Values:
    """Values of one model's rows as display strings; a dash where a metric was not measured."""

    def __init__(self, part: pd.DataFrame) -> None:
        self.part = part

    def row(self, metric: str, tokens: float | None = None) -> Any:
        values = self.part[self.part.metric == metric]
        if tokens is not None:
            values = values[values.tokens == tokens]
        return None if values.empty else values.iloc[-1]

    def last_tokens(self, metric: str) -> int | None:
        values = self.part[self.part.metric == metric]
        return None if values.empty else int(values.tokens.max())

    def milliseconds(self, metric: str) -> str:
        row = self.row(metric)
        return "-" if row is None else timed(row, 1)

    def plain(self, metric: str) -> str:
        row = self.row(metric)
        return "-" if row is None else f"{row.value:.1f}{DISTURBED if row.disturbed else ''}"

    def mebibytes(self, metric: str, tokens: float | None = None) -> str:
        row = self.row(metric, tokens)
        return "-" if row is None or pd.isna(row.value) else numbers.mebibytes(row.value)


def _speed(chosen: pd.DataFrame, name: str) -> Table:
    lines = []
    for label, part in chosen.sort_values("parameters", kind="stable").groupby("label", sort=False):
        values = Values(part)
        read, step, error = (values.row(metric) for metric in ("read_bytes", "p50_s", "disagreement"))
        lines.append(
            {
                "model": label,
                "parameters": numbers.count(part.parameters.iloc[0]),
                "attention": part.attention.iloc[0],
                "tokens": int(part.new_tokens.iloc[0]),
                "first token, ms": values.milliseconds("first_token_s"),
                "p50, ms": values.milliseconds("p50_s"),
                "p90, ms": values.milliseconds("p90_s"),
                "p99, ms": values.milliseconds("p99_s"),
                "tokens/s": values.plain("tokens_per_s"),
                "weights read, GB/s": f"{read.value / step.value / 1e9:.1f}" + (DISTURBED if step.disturbed else ""),
                "state error": "-" if error is None else numbers.magnitude(error.value),
            }
        )
    note = (
        "Median of the repeats, in brackets the least and the largest. weights read: parameter bytes over the p50 "
        "latency, without an embedding that is only looked up. state error: logits by carried state against those of "
        "one pass, of the largest logit."
    )
    note += eager_note(chosen) + disturbed_note(chosen)
    return Table(f"speed-{name}", "Time a token", pd.DataFrame(lines), note)


def _memory(chosen: pd.DataFrame, name: str) -> Table:
    lines = []
    extra = {metric: title for metric, title in DEVICE_MEMORY.items() if (chosen.metric == metric).any()}
    for label, part in chosen.sort_values("parameters", kind="stable").groupby("label", sort=False):
        values = Values(part)
        context = values.last_tokens("peak_live_bytes")
        lines.append(
            {
                "model": label,
                "context, tokens": context,
                "weights": values.mebibytes("parameter_bytes"),
                "cache or state": values.mebibytes("state_bytes", context),
                "by formula": values.mebibytes("state_formula_bytes", context),
                "held for it": values.mebibytes("state_held_bytes", context),
                "peak of live tensors": values.mebibytes("peak_live_bytes", context),
                **{title: values.mebibytes(metric, context) for metric, title in extra.items()},
            }
        )
    note = (
        "Beyond the weights (`all`: with them), at the end of the run. held for it: bytes allocated. The length of "
        "this run is known beforehand; for a text of unknown length a cache doubles, and holds up to twice the bytes. "
        "Resident growth is uncertain by about 10 MiB."
    )
    if "why" in chosen and (reasons := chosen.why.dropna().unique()).size:
        note += f" A dash: the system does not tell ({'; '.join(reasons)})."
    note += eager_note(chosen)
    return Table(f"memory-{name}", "Memory beyond the weights", pd.DataFrame(lines), note)


def longest(frame: pd.DataFrame) -> pd.DataFrame:
    """Of several cells of one model and protocol, the one with the most tokens; of several such, the latest
    that nothing disturbed.
    """
    keys = [*WHERE, "label", "protocol"]
    frame = frame.sort_values(["disturbed", "measured_at"], ascending=[False, True], kind="stable")
    longest = frame[frame.new_tokens == frame.groupby(keys, dropna=False).new_tokens.transform("max")]
    return longest[longest.cell == longest.groupby(keys, dropna=False).cell.transform("last")]


APART = {"protocol", "batch", "prompt_tokens", "new_tokens", "threads", "process"}
COMPARED: dict[str, Kind] = {"first_token_s": "time", "p50_s": "time"}
COMPARED |= {"peak_bytes": "bytes", "state_bytes": "bytes", "parameter_bytes": "bytes"}
SECTION = Section(views, {"inference": Reading(rows, APART, oldest=2, compared=COMPARED)})
