"""Views of generation: the sections, their tables, and the sentence that says who is faster."""

from __future__ import annotations

from typing import Any

import pandas as pd

from reports.draw.table import Table, mebibytes
from reports.published import paper
from reports.rows import Row
from reports.views import contexts, curves
from reports.views.view import DISTURBED, View, disturbed_note

WHERE = ["machine", "device", "dtype", "threads", "batch", "weights", "prompt_tokens"]
OURS = (
    "RWKV runs in this suite's own code, the others in transformers', whose work in Python between two tokens is part "
    "of their time; on a fast device and at small sizes it can be most of it."
)
DEVICE_MEMORY = {
    "resident_growth_bytes": "resident growth",
    "cuda_peak_bytes": "CUDA allocated, peak",
    "cuda_reserved_bytes": "CUDA reserved, all",
    "nvml_process_bytes": "NVML, all",
}
NO_CACHE = (
    "Here Transformers ran without a cache: the whole sequence again for every token, as in the public scripts "
    "that likely made the paper's figures, while RWKV carried its state. Nobody generates text this way; it is "
    "shown only to stand beside the published curves. The protocol `fair` is the comparison."
)


def views(rows: list[Row]) -> list[View]:
    """Every view of generation for each machine, device and type that was measured."""
    frame = pd.DataFrame([row for row in rows if row["experiment"] == "inference" and row["metric"] != "status"])
    if frame.empty:
        return []
    frame = frame[~contexts.of_contexts(frame)]  # they have a section of their own
    published = pd.DataFrame(paper.rows())
    found = []
    for i, (_, part) in enumerate(frame.groupby(WHERE, sort=False)):
        found += _one_machine(_longest(part), published, f"-{i + 1}" if i else "")
    return found


def _one_machine(part: pd.DataFrame, published: pd.DataFrame, suffix: str) -> list[View]:
    first = part.iloc[0]
    footer = (
        f"{first.machine} · {first.device} · {first['dtype']} · {first.threads:.0f} threads · batch {first.batch} · "
        f"prompt of {first.prompt_tokens} tokens · {first.weights} weights · median of {part.repeats.max():.0f} runs"
    )
    views = []
    for protocol in curves.PROTOCOLS:
        chosen = part[part.protocol == protocol]
        if chosen.empty:
            continue
        beside = published if protocol == "paper" else published.head(0)  # the published curves are of that protocol
        name = f"{protocol}{suffix}"
        pictures = [
            curves.cumulative(chosen, beside, name, footer),
            *([curves.latency(chosen, name, footer)] if protocol == "fair" else []),
            curves.against_parameters(chosen, beside, name, footer, "time"),
            curves.against_parameters(chosen, beside, name, footer, "memory"),
            *([curves.state(chosen, name, footer)] if protocol == "fair" else []),
        ]
        tables = [_speed(chosen, name), _memory(chosen, name)]
        text = [findings(chosen) if protocol == "fair" else NO_CACHE, OURS, f"{footer}."]
        title = f"Generation, {first.machine}, {first.device} {first['dtype']}: {curves.PROTOCOLS[protocol]}"
        views.append(View(f"generation-{name}", title, text, tables, pictures))
    return views


def summary(rows: list[Row]) -> Table | None:
    """The short table that a run ends with; what differs between its lines is a column of it."""
    frame = pd.DataFrame([row for row in rows if row["experiment"] == "inference" and row["metric"] != "status"])
    if frame.empty:
        return None
    frame = _longest(frame)
    varying = [key for key in WHERE if frame[key].nunique() > 1]
    lines = []
    ordered = frame.sort_values("parameters", kind="stable")
    for (label, *_), part in ordered.groupby(["label", *varying], sort=False, dropna=False):
        fair, no_cache = _Values(part[part.protocol == "fair"]), _Values(part[part.protocol == "paper"])
        context = fair.last_tokens("state_bytes")
        lines.append(
            {
                "model": label,
                **{key.replace("_", " "): part[key].iloc[0] for key in varying},
                "parameters": f"{part.parameters.iloc[0] / 1e6:.0f} M",
                "ms a token": fair.milliseconds("p50_s"),
                "first token, ms": fair.milliseconds("first_token_s"),
                "ms a token, no cache*": no_cache.milliseconds("p50_s"),
                "cache or state": fair.mebibytes("state_bytes", context) + (f" at {context}" if context else ""),
            }
        )
    note = "* the paper's protocol, over its first tokens: only RWKV carries its state. The others: every family does."
    return Table("summary", "Generation in short", pd.DataFrame(lines), note + disturbed_note(frame))


def findings(chosen: pd.DataFrame) -> str:
    """Who is faster and who needs less, class by class, in one form whoever wins; a model that was also measured at
    its best is compared as that.
    """
    sentences = []
    disturbed = chosen[chosen.disturbed].label.unique()
    best = chosen.model[chosen.at_best]  # where that is disturbed, no variant stands for it
    for name, part in curves.classes(chosen[~chosen.disturbed & (chosen.at_best | ~chosen.model.isin(best))]):
        tokens = curves.common_tokens(part, "cumulative_s")
        at = part[(part.metric == "cumulative_s") & (part.tokens == tokens)].set_index("label")
        context = curves.common_tokens(part, "state_bytes")
        kept_bytes = part[(part.metric == "state_bytes") & (part.tokens == context)]
        state = kept_bytes.set_index("label").value.to_dict()
        ours = at[at.family == "rwkv4"]
        if ours.empty or len(at) == len(ours):
            continue
        for label, seconds in ours.value.items():
            compared = []
            for other, value in at[at.family != "rwkv4"].value.sort_values().to_dict().items():
                ratio, kept = seconds / value, state[label] / state[other]
                compared.append(f"{ratio:.2f} x the time of {other} and {kept:.3f} x its cache at {context}")
            sentences.append(
                f"Models {name}, {tokens} tokens: {label} took {seconds:.2f} s; that is {'; '.join(compared)}."
            )
    if not sentences:
        sentences.append("There is no size class with both RWKV and a Transformer.")
    if len(disturbed):
        sentences.append(f"Not compared, since their measurement was disturbed: {', '.join(disturbed)}.")
    return " ".join(sentences)


class _Values:
    """Values of one model's rows as display strings; a dash where a metric was not measured."""

    def __init__(self, part: pd.DataFrame) -> None:
        self.part = part

    def row(self, metric: str, tokens: float | None = None) -> Any:
        found = self.part[self.part.metric == metric]
        if tokens is not None:
            found = found[found.tokens == tokens]
        return None if found.empty else found.iloc[-1]

    def last_tokens(self, metric: str) -> int | None:
        found = self.part[self.part.metric == metric]
        return None if found.empty else int(found.tokens.max())

    def milliseconds(self, metric: str) -> str:
        row = self.row(metric)
        if row is None:
            return "-"
        return f"{row.value * 1e3:.1f} ({row.low * 1e3:.1f}-{row.high * 1e3:.1f}){DISTURBED if row.disturbed else ''}"

    def plain(self, metric: str) -> str:
        row = self.row(metric)
        return "-" if row is None else f"{row.value:.1f}{DISTURBED if row.disturbed else ''}"

    def mebibytes(self, metric: str, tokens: float | None = None) -> str:
        row = self.row(metric, tokens)
        return "-" if row is None or pd.isna(row.value) else mebibytes(row.value)


def _speed(chosen: pd.DataFrame, name: str) -> Table:
    lines = []
    for label, part in chosen.sort_values("parameters", kind="stable").groupby("label", sort=False):
        values = _Values(part)
        read, step = values.row("read_bytes"), values.row("p50_s")
        lines.append(
            {
                "model": label,
                "parameters": f"{part.parameters.iloc[0]:,.0f}",
                "attention": part.attention.iloc[0],
                "tokens": int(part.new_tokens.iloc[0]),
                "first token, ms": values.milliseconds("first_token_s"),
                "p50, ms": values.milliseconds("p50_s"),
                "p90, ms": values.milliseconds("p90_s"),
                "p99, ms": values.milliseconds("p99_s"),
                "tokens/s": values.plain("tokens_per_s"),
                "weights read, GB/s": f"{read.value / step.value / 1e9:.1f}" + (DISTURBED if step.disturbed else ""),
                "state error": "-" if values.row("disagreement") is None else f"{values.row('disagreement').value:.0e}",
            }
        )
    note = (
        "Median of the repeats, in brackets the least and the largest. weights read: parameter bytes over the p50 "
        "latency, without an embedding that is only looked up. state error: logits by carried state against those of "
        "one pass, of the largest logit."
    ) + disturbed_note(chosen)
    return Table(f"speed-{name}", "Time a token", pd.DataFrame(lines), note)


def _memory(chosen: pd.DataFrame, name: str) -> Table:
    lines = []
    extra = {metric: title for metric, title in DEVICE_MEMORY.items() if (chosen.metric == metric).any()}
    for label, part in chosen.sort_values("parameters", kind="stable").groupby("label", sort=False):
        values = _Values(part)
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
    return Table(f"memory-{name}", "Memory beyond the weights", pd.DataFrame(lines), note)


def _longest(frame: pd.DataFrame) -> pd.DataFrame:
    """Of several cells of one model and protocol, the one with the most tokens; of several such, the latest
    that nothing disturbed.
    """
    keys = [*WHERE, "label", "protocol"]
    frame = frame.sort_values(["disturbed", "measured_at"], ascending=[False, True], kind="stable")
    longest = frame[frame.new_tokens == frame.groupby(keys, dropna=False).new_tokens.transform("max")]
    return longest[longest.cell == longest.groupby(keys, dropna=False).cell.transform("last")]
