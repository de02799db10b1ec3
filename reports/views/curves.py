"""Pictures of generation: time against tokens, time and memory against parameters, cache against context."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from reports.draw import looks
from reports.draw.figure import Panel, Picture, Series
from reports.draw.numbers import MIB
from reports.published import paper

CLASSES = {  # each holds one size of the paper's RWKV-4; the upper bound in parameters
    "up to 250 M": 0.25e9,
    "0.25 to 0.8 B": 0.8e9,
    "0.8 to 2 B": 2e9,
    "2 to 4 B": 4e9,
    "4 to 9 B": 9e9,
    "above 9 B": float("inf"),
}
PROTOCOLS = {
    "fair": "every family with its cache or state",
    "paper": "Transformers WITHOUT a cache, RWKV with its state",
}


def cumulative(chosen: pd.DataFrame, published: pd.DataFrame, name: str, footer: str) -> Picture:
    panels = [
        Panel(
            f"{title} parameters",
            "tokens generated",
            "seconds since the start of the prompt",
            _lines(part, "cumulative_s"),
        )
        for title, part in classes(chosen)
    ]
    beside = published[published.figure == "Fig6"]
    if len(beside):
        panels.append(
            Panel(
                "Published: 2.7 to 3 B on one A100 (v1 Fig. 6)",
                "tokens generated",
                "seconds since the start of the prompt",
                [_published_line(part, label) for label, part in beside.groupby("label", sort=False)],
            )
        )
    title = "Cumulative time: " + PROTOCOLS[chosen.protocol.iloc[0]]
    return Picture(f"cumulative-{name}", title, panels, footer)


def latency(chosen: pd.DataFrame, name: str, footer: str) -> Picture:
    panels = [
        Panel(f"{title} parameters", "tokens generated", "milliseconds a token", _lines(part, "step_s", 1e3, window=9))
        for title, part in classes(chosen)
    ]
    return Picture(f"latency-{name}", "Latency of each token (running median of 9)", panels, footer)


def against_parameters(chosen: pd.DataFrame, published: pd.DataFrame, name: str, footer: str, what: str) -> Picture:
    metric, unit, scale, figure = {
        "time": ("cumulative_s", "seconds", 1.0, "Fig11"),
        "memory": ("peak_bytes", "MiB", MIB, "Fig10"),
    }[what]
    tokens = common_tokens(chosen, metric)
    at = chosen[(chosen.metric == metric) & (chosen.tokens == tokens)]
    kind = "tokens generated" if what == "time" else "tokens of context"
    kind_of_peak = "allocator's peak" if (chosen.device == "cuda").any() else "live tensors"
    y_title = f"{unit} for {tokens} tokens" if what == "time" else f"{unit} beyond the weights, {kind_of_peak}"
    panels = [
        Panel(
            f"Measured here, {tokens} {kind}",
            "parameters (billions)",
            y_title,
            [_points(part, family, scale) for (family, _), part in at.groupby(["family", "variant"], sort=False)],
            log_x=10,
            log_y=10,
        )
    ]
    beside = published[(published.figure == figure) & (published.device == chosen.device.iloc[0])]
    if len(beside):
        panels.append(
            Panel(
                f"Published, {paper.FIXED_TOKENS} tokens, {beside.machine.iloc[0]} (v1 Fig. {figure[3:]})",
                "parameters (billions)",
                f"{unit} for {paper.FIXED_TOKENS} tokens" if what == "time" else f"{unit} beyond the weights",
                [_points(part, family, scale, hollow=True) for family, part in beside.groupby("family", sort=False)],
                log_x=10,
                log_y=10,
                note="" if what == "time" else "the public scripts add up allocations; this is no peak",
            )
        )
    subject = "Time at a fixed length" if what == "time" else "Peak memory beyond the weights"
    protocol = PROTOCOLS[chosen.protocol.iloc[0]]
    return Picture(f"{what}-against-parameters-{name}", f"{subject}: {protocol}", panels, footer)


def state(chosen: pd.DataFrame, name: str, footer: str) -> Picture:
    panels = []
    for title, part in classes(chosen):
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
    curves: dict[tuple[float, ...], list[tuple[str, pd.DataFrame]]] = {}
    for label, one in points.groupby("label", sort=False):
        curves.setdefault((*one.tokens, *one.value), []).append((str(label), one))
    for same in curves.values():
        yield " = ".join(label for label, _ in same), same[0][1]


def classes(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Size classes that hold something, small first."""
    lower = 0.0
    for name, upper in CLASSES.items():
        part = frame[(frame.parameters > lower) & (frame.parameters <= upper)]
        if not part.empty:
            yield name, part
        lower = upper


def size(parameters: float) -> str:
    """The class that a model of so many parameters is in."""
    return next(name for name, upper in CLASSES.items() if parameters <= upper)


def common_tokens(frame: pd.DataFrame, metric: str) -> int:
    """The largest number of tokens at which every model has a value."""
    values = frame[frame.metric == metric]
    return int(max(set.intersection(*(set(part.tokens) for _, part in values.groupby("label")))))


def _lines(part: pd.DataFrame, metric: str, scale: float = 1.0, window: int = 1) -> list[Series]:
    """Repeats apart are marked at each token; in a sum over tokens, which carries what was slow once, at the last."""
    lines = []
    for label, one in part[part.metric == metric].groupby("label", sort=False):
        smooth = one[["value", "band_low", "band_high"]].rolling(window, center=True, min_periods=1).median() * scale
        y, low, high = (list(smooth[column]) for column in smooth)
        marked = one[one.tokens == one.tokens.max()] if metric == "cumulative_s" else one
        apart = [(x, scale * value) for x, values in zip(marked.tokens, marked.apart, strict=True) for value in values]
        disturbed = bool(one.disturbed.any())
        name = f"{label} (disturbed)" if disturbed else str(label)
        family, x = one.family.iloc[0], list(one.tokens)
        lines.append(Series(name, family, x, y, low, high, dashed=disturbed, hollow=disturbed, apart=apart))
    return lines


def _line(points: pd.DataFrame, label: str, scale: float, *, markers: bool = True, dashed: bool = False) -> Series:
    family = points.family.iloc[0]
    return Series(label, family, list(points.tokens), list(points.value / scale), markers=markers, dashed=dashed)


def _published_line(part: pd.DataFrame, label: object) -> Series:
    return Series(str(label), part.family.iloc[0], list(part.tokens), list(part.value), hollow=True)


def _points(part: pd.DataFrame, family: object, scale: float, *, hollow: bool = False) -> Series:
    ordered = part.sort_values("parameters")
    more = ", published" if hollow else str(ordered.variant.iloc[0])
    label = looks.label(str(family)) + more
    x, y = list(ordered.parameters / 1e9), list(ordered.value / scale)
    if "band_low" not in ordered or ordered.band_low.isna().any():
        return Series(label, str(family), x, y, hollow=hollow)
    low, high = list(ordered.band_low / scale), list(ordered.band_high / scale)
    apart = [(at, value / scale) for at, values in zip(x, ordered.apart, strict=True) for value in values]
    return Series(label, str(family), x, y, low, high, hollow=hollow, apart=apart, crossed=list(ordered.disturbed))
