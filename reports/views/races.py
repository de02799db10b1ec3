"""Views of races: contenders beside each other and beside what was to be reached."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import pandas as pd

from reports.draw import looks, numbers
from reports.draw.table import Table
from reports.reading import Reading, Row
from reports.records.record import Record
from reports.results import Results
from reports.sentences import TIME, Comparison, beyond_noise
from reports.statistics.bands import spread
from reports.views import contenders, goals, race_pictures
from reports.views.contenders import EAGER, NOT_COMPARED, OURS, PRODUCT, PRODUCTS, SHAPE
from reports.views.view import Section, View, disturbed_note, parts, timed

WHERE = ["machine", "device", "dtype"]
QUANTISED_TEXT = (
    "Quantised weights are another arithmetic on purpose: no bound is set to their error. How far they move the model "
    "was measured over random text of 64 tokens: KL is the mean divergence of the next token's distribution from ours, "
    "same first token the share of positions where the likeliest token is ours. Random weights have no clear first "
    "token, so that such a share says little of trained ones. The products alone are of the weights in full."
)
KERNEL_TEXT = (
    "The WKV operator alone. Every contender's result, gradients included, was compared with the paper's recurrence "
    "in float64 before it was timed; error is the largest difference, of the largest entry, and one that was far off "
    "was not timed. All of them ran in turn in one process, each allocating its result, on a CPU after what others "
    "had freed was given back to the system, so that each pays for memory as it would alone; where ours ran once more "
    "with y preallocated, its name says so. transformers is what its model runs without its CUDA kernel; its "
    "gradients take time that grows with the square of the length and are raced at small shapes alone. The "
    "loops in numba (which has no gradients) and under torch.compile (on a CPU; in blocks of tokens, each one "
    "function) are what a user of Python gets by compiling the recurrence as it is written. The floor moves the bytes "
    "that must move and does nothing else: on a CPU the time of torch.add(k, v, out=y), y preallocated, scaled to the "
    "tensors of the pass (three forward, eight forward and backward), on a GPU those bytes at the bandwidth of a copy "
    "of 1 GiB (what fits in a GPU's cache can be faster)."
)
PRODUCT_TEXT = (
    "Of RWKV-5 and 6 five tensors must move forward, nine forward and backward; of RWKV-7 seven and thirteen. The "
    "arithmetic floor takes a recurrence's multiply-adds, token by token, at the speed of a large matrix product in "
    "float32 on the same threads; share of peak is its part of a contender's time."
)
WHOLE_TEXT = (
    "{families} as a whole in several implementations with the same weights, inputs, type and threads, in turn in one "
    "process after warming up, each by its own call for the task, with logits of the last position alone; what its "
    "call needs beforehand (its copy of the weights, tokens as a list, the state of what came before) is not timed. "
    "error is the largest difference of their logits (for a training step, of the embedding's gradient) from ours. "
    "prompt: the last logits of a prompt. train: one forward and backward pass of the loss. token: the next token's "
    "logits from a state or cache that has seen 16 tokens, or as many as are named."
)


def rows(record: Record) -> Iterator[Row]:
    """Seconds of each contender, the spread over the rounds. scale: what a floor's were multiplied by."""
    params, metrics = record.cell.params, record.metrics
    after = f" after {params['context']:,}" if "context" in record.cell.differing else ""
    shared = {
        "what": params.get("direction") or params["task"] + after,
        "tokens": params["tokens"],
        "channels": metrics.get("channels"),
        "threads": metrics["threads"],
        "context": params.get("context"),
        "left_out": metrics.get("left_out", {}),
    }
    # a floor moves its own bytes, or does its own multiply-adds: its time is scaled to those that must be
    scales = {"floor": ("bytes", "floor_bytes"), PRODUCT: ("multiply_adds", "product_multiply_adds")}
    for name, seconds in record.samples["seconds"].items():
        scale = metrics[scales[name][0]] / metrics[scales[name][1]] if name in scales else 1.0
        error = metrics["errors"].get(name.removesuffix(EAGER))
        graphed = name in metrics["graphed"]
        times = spread("race_s", [scale * s for s in seconds], contender=name, error=error, graphed=graphed)
        implementation = metrics.get("implementations", {}).get(name.removesuffix(EAGER))
        distance = metrics.get("distances", {}).get(name, {})
        moved = {key: distance.get(key) for key in ("kl", "same_first")}
        yield {**times, **shared, **moved, "scale": scale, "samples": seconds, "implementation": implementation}


def views(results: Results) -> Iterator[View]:
    """The kernels and the whole model, for each machine, device and type that was measured; with the first, all goals
    are printed.
    """
    frame = results.frame("kernels", "peers")
    if frame.empty:
        return
    printed = reached = goals.table(results)
    for number, (machine, device, dtype), part in parts(frame, WHERE):
        for experiment, title, text in (
            ("kernels", "WKV kernels", KERNEL_TEXT),
            ("peers", "{families} in other implementations", WHOLE_TEXT),
        ):
            chosen = part[part.experiment == experiment]
            if chosen.empty:
                continue
            name = f"{experiment}{number}"
            families = " and ".join(looks.label(family) for family in dict.fromkeys(chosen.family))
            tables = [_times(chosen, name), *_implementations(chosen, name)]
            if reached is not None:
                frame_on = [experiment, machine, f"{device} {dtype}"]
                here = reached.frame[(reached.frame[["experiment", "machine", "on"]] == frame_on).all(axis=1)]
                here = here.drop(columns=["experiment", "machine", "on"])  # the section's title says them
                tables += [Table(f"{name}-goals", "What was to be reached", here, reached.note)] if len(here) else []
            footer = f"{machine} · {device} · {dtype} · median of the rounds"
            pictures = (
                [race_pictures.by_size(chosen, name, footer)]
                if experiment == "kernels"
                else list(race_pictures.by_context(chosen, name, footer))
            )
            heading = f"{title.format(families=families)}, {machine}, {device} {dtype}"
            beside = list(_comparisons(chosen))
            texts = [text.format(families=families)] + [PRODUCT_TEXT] * bool((chosen.contender == PRODUCT).any())
            texts += [QUANTISED_TEXT] * bool(chosen.kl.notna().any())
            yield View(name, heading, texts, tables, pictures, printed, beside)
            printed = None


def _comparisons(chosen: pd.DataFrame) -> Iterator[Comparison]:
    """In each undisturbed race every implementation of ours that allocates, beside every contender that is not ours."""
    several = contenders.several(chosen)
    for _, cell in chosen[~chosen.disturbed].groupby("cell", sort=False):
        theirs = cell[~cell.contender.map(contenders.base).isin(NOT_COMPARED)]
        for ours in OURS:
            ran = cell[cell.contender.isin([ours, ours + EAGER])]
            for _, mine in ran.sort_values("contender").head(1).iterrows():  # as a graph, where it ran as one
                shown = f"{contenders.what(mine, several)} {contenders.shape(mine)}"
                heading = f"{contenders.name(mine)}, {shown}, threads: {mine.threads}"
                yield from (_beside(heading, mine, other) for _, other in theirs.iterrows())


def _beside(heading: str, mine: pd.Series, other: pd.Series) -> Comparison:
    """By the ratios within the rounds."""
    ratios = [theirs / its for its, theirs in zip(mine.samples, other.samples, strict=False)]
    ratio = statistics.median(ratios)
    size = f"{numbers.spread(ratio, min(ratios), max(ratios), numbers.ratio)} x as fast"
    return Comparison(
        heading, TIME, contenders.name(other), ratio - 1, size, apart=beyond_noise(min(ratios), max(ratios))
    )


def _times(chosen: pd.DataFrame, name: str) -> Table:
    lines = []
    several, arithmetics = contenders.several(chosen), bool((chosen.contender == PRODUCT).any())
    moved = bool(chosen.kl.notna().any())
    for _, part in chosen.groupby([*SHAPE, "cell"], sort=False, dropna=False):
        floors = part[part.contender.isin(["floor", *PRODUCTS])].value
        arithmetic = part[part.contender == PRODUCT].value
        for _, row in part.iterrows():
            share = numbers.percent(arithmetic.iloc[0] / row.value) if len(arithmetic) and not row.disturbed else "-"
            over_floor = numbers.ratio(row.value / floors.min()) if len(floors) and not row.disturbed else "-"
            lines.append(
                {
                    "what": contenders.what(row, several),
                    "shape": contenders.shape(row),
                    "threads": row.threads,
                    "contender": contenders.name(row),
                    "ms": timed(row),
                    "rounds": row.repeats,
                    "times the floor": over_floor,
                    **({"share of peak": share} if arithmetics else {}),
                    "error": numbers.magnitude(row.error),
                    **({"KL": numbers.magnitude(row.kl), "same first token": _share(row.same_first)} if moved else {}),
                }
            )
    note = "Median of the rounds, in brackets the least and the largest." + _left_out(chosen) + disturbed_note(chosen)
    return Table(name, "Time of each contender", pd.DataFrame(lines), note)


def _share(value: float) -> str:
    return "-" if pd.isna(value) else numbers.percent(value)


def _left_out(chosen: pd.DataFrame) -> str:
    """What could have been raced and was not, with the reason."""
    reasons = dict.fromkeys(f"{name} ({why})" for left in chosen.left_out for name, why in left.items())
    return f" Not raced: {', '.join(reasons)}." if reasons else ""


def _implementations(chosen: pd.DataFrame, name: str) -> Iterator[Table]:
    """What each contender is, where the records say so."""
    said = chosen.dropna(subset="implementation").drop_duplicates(["contender", "implementation"])
    if len(said):
        names = map(contenders.named, said.contender, said.runtime)
        lines = {"contender": list(names), "what it is": said.implementation}
        yield Table(f"{name}-implementations", "What each contender is", pd.DataFrame(lines))


SHARED = {"batch", "tokens", "threads"}
SECTION = Section(
    views,
    {
        "kernels": Reading(rows, apart={"direction", *SHARED}, oldest=3, compared={"race_s": "time"}),
        "peers": Reading(rows, apart={"task", "context", *SHARED}, oldest=3, compared={"race_s": "time"}),
    },
)
