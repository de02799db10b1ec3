"""Views of generation: time against tokens, time and memory against parameters, cache against context."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from reports import paper
from reports.figures import FAMILIES, Panel, Picture, Series
from reports.rows import Row
from reports.tables import Table
from reports.views import View

MIB = 2**20
CLASSES = {  # each holds one size of the paper's RWKV-4; the upper bound in parameters
    "up to 250 M": 0.25e9,
    "0.25 to 0.8 B": 0.8e9,
    "0.8 to 2 B": 2e9,
    "2 to 4 B": 4e9,
    "4 to 9 B": 9e9,
    "above 9 B": float("inf"),
}
WHERE = ["machine", "device", "dtype", "threads", "batch", "weights", "prompt_tokens"]
PROTOCOLS = {
    "fair": "every family with its cache or state",
    "paper": "Transformers WITHOUT a cache, RWKV with its state",
}
NO_CACHE = (
    "Here Transformers ran without a cache: the whole sequence again for every token, as in the public scripts "
    "behind the paper's figures, while RWKV carried its state. Nobody generates text this way; it is shown only to "
    "stand beside the published curves. The protocol `fair` is the comparison."
)


def views(rows: list[Row]) -> list[View]:
    """Every view of generation for each machine, device and type that was measured."""
    frame = pd.DataFrame([row for row in rows if row["experiment"] == "inference" and row["metric"] != "status"])
    if frame.empty:
        return []
    published = pd.DataFrame(paper.rows())
    found = []
    for i, (_, part) in enumerate(frame.groupby(WHERE, sort=False)):
        found += _one_machine(_longest(part), published, f"-{i + 1}" if i else "")
    return found


def _one_machine(part: pd.DataFrame, published: pd.DataFrame, suffix: str) -> list[View]:
    first = part.iloc[0]
    weights = "random weights" if first.weights.startswith("random") else f"weights: {first.weights}"
    footer = (
        f"{first.machine} · {first.device} · {first['dtype']} · {first.threads:.0f} threads · batch {first.batch} · "
        f"prompt of {first.prompt_tokens} tokens · {weights} · median of {part.repeats.max():.0f} runs"
    )
    views = []
    for protocol in PROTOCOLS:
        chosen = part[part.protocol == protocol]
        if chosen.empty:
            continue
        beside = published[published.device == first.device] if protocol == "paper" else published.head(0)
        name = f"{protocol}{suffix}"
        pictures = [
            _cumulative(chosen, published if protocol == "paper" else published.head(0), name, footer),
            *([_latency(chosen, name, footer)] if protocol == "fair" else []),
            _against_parameters(chosen, beside, name, footer, "time"),
            _against_parameters(chosen, beside, name, footer, "memory"),
            *([_state(chosen, name, footer)] if protocol == "fair" else []),
        ]
        tables = [_speed(chosen, name), _memory(chosen, name)]
        text = [findings(chosen) if protocol == "fair" else NO_CACHE, f"{footer}."]
        title = f"Generation, {first.machine}, {first.device} {first['dtype']}: {PROTOCOLS[protocol]}"
        views.append(View(f"generation-{name}", title, text, tables, pictures))
    return views


def summary(rows: list[Row]) -> Table | None:
    """The short table that a run ends with."""
    frame = pd.DataFrame([row for row in rows if row["experiment"] == "inference"])
    if frame.empty:
        return None
    frame = _longest(frame)
    lines = []
    for label, part in frame.sort_values("parameters", kind="stable").groupby("label", sort=False):
        fair, no_cache = _Values(part[part.protocol == "fair"]), _Values(part[part.protocol == "paper"])
        context = fair.last_tokens("state_bytes")
        lines.append(
            {
                "model": label,
                "parameters": f"{part.parameters.iloc[0] / 1e6:.0f} M",
                "ms a token": fair.milliseconds("p50_s"),
                "first token, ms": fair.milliseconds("first_token_s"),
                "ms a token, no cache*": no_cache.milliseconds("p50_s"),
                "cache or state": fair.mebibytes("state_bytes", context) + (f" at {context}" if context else ""),
            }
        )
    note = (
        "* the paper's protocol: only RWKV carries its state. All other columns: every family with its cache or state."
    )
    return Table("summary", "Generation in short", pd.DataFrame(lines), note)


def findings(chosen: pd.DataFrame) -> str:
    """Who is faster and who needs less, class by class, in one form whoever wins."""
    sentences = []
    for name, part in _classes(chosen):
        tokens = _common_tokens(part, "cumulative_s")
        at = part[(part.metric == "cumulative_s") & (part.tokens == tokens)].set_index("label")
        state = part[part.metric == "state_bytes"].sort_values("tokens").groupby("label").value.last().to_dict()
        ours = at[at.family == "rwkv4"]
        if ours.empty or len(at) == len(ours):
            continue
        label, seconds = ours.index[0], ours.value.iloc[0]
        compared = []
        for other, value in at[at.family != "rwkv4"].value.sort_values().to_dict().items():
            ratio, kept = seconds / value, state[label] / state[other]
            compared.append(f"{ratio:.2f} x the time of {other} and {kept:.3f} x its cache")
        sentences.append(f"{name}, {tokens} tokens: {label} took {seconds:.2f} s; that is {'; '.join(compared)}.")
    return " ".join(sentences) or "There is no size class with both RWKV and a Transformer."


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
        return "-" if row is None else f"{row.value * 1e3:.1f} ({row.low * 1e3:.1f}-{row.high * 1e3:.1f})"

    def plain(self, metric: str) -> str:
        row = self.row(metric)
        return "-" if row is None else f"{row.value:.1f}"

    def mebibytes(self, metric: str, tokens: float | None = None) -> str:
        row = self.row(metric, tokens)
        return "-" if row is None else f"{row.value / MIB:.2f} MiB"


def _speed(chosen: pd.DataFrame, name: str) -> Table:
    lines = []
    for label, part in chosen.sort_values("parameters", kind="stable").groupby("label", sort=False):
        values = _Values(part)
        weights, step = values.row("parameter_bytes"), values.row("p50_s")
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
                "weights read, GB/s": f"{weights.value / step.value / 1e9:.1f}",
                "state error": "-" if values.row("disagreement") is None else f"{values.row('disagreement').value:.0e}",
            }
        )
    note = (
        "Median of the repeats, in brackets the least and the largest. weights read: all parameter bytes over the p50 "
        "latency, embedding included. state error: logits by carried state against one pass, of the largest logit."
    )
    return Table(f"speed-{name}", "Time a token", pd.DataFrame(lines), note)


def _memory(chosen: pd.DataFrame, name: str) -> Table:
    lines = []
    device_peak = "cuda_peak_bytes" if (chosen.device == "cuda").any() else "resident_growth_bytes"
    extra = {"cuda_peak_bytes": "CUDA peak", "resident_growth_bytes": "resident growth"}[device_peak]
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
                "peak of live tensors": values.mebibytes("peak_live_bytes", context),
                extra: values.mebibytes(device_peak, context),
            }
        )
    note = "Beyond the weights, at the end of the run. Resident growth is uncertain by about 10 MiB."
    return Table(f"memory-{name}", "Memory beyond the weights", pd.DataFrame(lines), note)


def _cumulative(chosen: pd.DataFrame, published: pd.DataFrame, name: str, footer: str) -> Picture:
    panels = [
        Panel(f"{title} parameters", "tokens generated", "seconds since the prompt", _lines(part, "cumulative_s"))
        for title, part in _classes(chosen)
    ]
    curves = published[published.figure == "Fig6"] if len(published) else published
    if len(curves):
        panels.append(
            Panel(
                "Published: 2.7 to 3 B on one A100 (v1 Fig. 6)",
                "tokens generated",
                "seconds since the prompt",
                [_published_line(part, label) for label, part in curves.groupby("label", sort=False)],
            )
        )
    title = "Cumulative time: " + PROTOCOLS["paper" if "paper" in name else "fair"]
    return Picture(f"cumulative-{name}", title, panels, footer)


def _latency(chosen: pd.DataFrame, name: str, footer: str) -> Picture:
    panels = [
        Panel(f"{title} parameters", "tokens generated", "milliseconds a token", _lines(part, "step_s", 1e3, window=9))
        for title, part in _classes(chosen)
    ]
    return Picture(f"latency-{name}", "Latency of each token (running median of 9)", panels, footer)


def _against_parameters(chosen: pd.DataFrame, published: pd.DataFrame, name: str, footer: str, what: str) -> Picture:
    metric, unit, scale, figure = {
        "time": ("cumulative_s", "seconds", 1.0, "Fig11"),
        "memory": ("peak_bytes", "MiB", MIB, "Fig10"),
    }[what]
    tokens = _common_tokens(chosen, metric)
    at = chosen[(chosen.metric == metric) & (chosen.tokens == tokens)]
    kind = "tokens generated" if what == "time" else "tokens of context"
    y_title = f"{unit} for {tokens} tokens" if what == "time" else f"{unit} beyond the weights"
    panels = [
        Panel(
            f"Measured here, {tokens} {kind}",
            "parameters (billions)",
            y_title,
            [_points(part, family, scale) for family, part in at.groupby("family", sort=False)],
            log_x=10,
            log_y=10,
        )
    ]
    beside = published[published.figure == figure] if len(published) else published
    if len(beside):
        panels.append(
            Panel(
                f"Published, {paper.FIXED_TOKENS} tokens, {beside.machine.iloc[0]} (v1 Fig. {figure[3:]})",
                "parameters (billions)",
                y_title.replace(str(tokens), str(paper.FIXED_TOKENS)),
                [_points(part, family, scale, hollow=True) for family, part in beside.groupby("family", sort=False)],
                log_x=10,
                log_y=10,
            )
        )
    subject = "Time at a fixed length" if what == "time" else "Peak memory beyond the weights"
    protocol = PROTOCOLS["paper" if "paper" in name else "fair"]
    return Picture(f"{what}-against-parameters-{name}", f"{subject}: {protocol}", panels, footer)


def _state(chosen: pd.DataFrame, name: str, footer: str) -> Picture:
    panels = []
    for title, part in _classes(chosen):
        series = []
        for label, one in _alike(part[part.metric == "state_bytes"]):
            formula = part[(part.metric == "state_formula_bytes") & (part.cell == one.cell.iloc[0])]
            series.append(_line(one, label, MIB))
            series.append(_line(formula, "", MIB, markers=False, dashed=True))
        note = "markers: measured; dashed: by formula"
        panels.append(Panel(f"{title} parameters", "tokens of context", "MiB", series, log_x=2, log_y=10, note=note))
    return Picture(f"state-{name}", "Cache or state against context", panels, footer)


def _alike(points: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Curves, those with the very same points as one, so that none lies hidden under another."""
    found: dict[tuple[float, ...], list[tuple[str, pd.DataFrame]]] = {}
    for label, one in points.groupby("label", sort=False):
        found.setdefault((*one.tokens, *one.value), []).append((str(label), one))
    for same in found.values():
        yield " = ".join(label for label, _ in same), same[0][1]


def _classes(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Size classes that hold something, small first."""
    lower = 0.0
    for name, upper in CLASSES.items():
        part = frame[(frame.parameters > lower) & (frame.parameters <= upper)]
        if not part.empty:
            yield name, part
        lower = upper


def _common_tokens(frame: pd.DataFrame, metric: str) -> int:
    """The largest number of tokens at which every model has a value; a power of two where there is one."""
    values = frame[frame.metric == metric]
    common = set.intersection(*(set(part.tokens) for _, part in values.groupby("label")))
    powers = [n for n in common if int(n) & (int(n) - 1) == 0]
    return int(max(powers or common))


def _longest(frame: pd.DataFrame) -> pd.DataFrame:
    """Of several cells of one model and protocol, the one with the most tokens."""
    keys = [*WHERE, "label", "protocol"]
    return frame[frame.new_tokens == frame.groupby(keys, dropna=False).new_tokens.transform("max")]


def _lines(part: pd.DataFrame, metric: str, scale: float = 1.0, window: int = 1) -> list[Series]:
    found = []
    for label, one in part[part.metric == metric].groupby("label", sort=False):
        smooth = one[["value", "low", "high"]].rolling(window, center=True, min_periods=1).median() * scale
        y, low, high = (list(smooth[column]) for column in smooth)
        found.append(Series(str(label), one.family.iloc[0], list(one.tokens), y, low, high))
    return found


def _line(points: pd.DataFrame, label: str, scale: float, *, markers: bool = True, dashed: bool = False) -> Series:
    family = points.family.iloc[0]
    return Series(label, family, list(points.tokens), list(points.value / scale), markers=markers, dashed=dashed)


def _published_line(part: pd.DataFrame, label: object) -> Series:
    return Series(str(label), part.family.iloc[0], list(part.tokens), list(part.value), hollow=True)


def _points(part: pd.DataFrame, family: object, scale: float, *, hollow: bool = False) -> Series:
    ordered = part.sort_values("parameters")
    label = FAMILIES[str(family)][0] + (", published" if hollow else "")
    x, y = list(ordered.parameters / 1e9), list(ordered.value / scale)
    if "low" not in ordered or ordered.low.isna().any():
        return Series(label, str(family), x, y, hollow=hollow)
    return Series(label, str(family), x, y, list(ordered.low / scale), list(ordered.high / scale), hollow=hollow)
