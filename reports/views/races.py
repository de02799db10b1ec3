"""Views of races: contenders beside each other and beside what was to be reached."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from reports.draw import looks, numbers
from reports.draw.figure import Panel, Picture, Series
from reports.draw.table import Table
from reports.reading import Reading, Row
from reports.records.record import Record
from reports.results import Results
from reports.sentences import TIME, Comparison, beyond_noise
from reports.statistics.bands import spread
from reports.views.view import Section, View, disturbed_note, parts, timed

GOALS = Path(__file__).with_name("goals.csv")
WHERE = ["machine", "device", "dtype"]
SHAPE = ["what", "batch", "tokens", "channels", "threads"]
NAMES = {
    "floor": "memory floor",
    "matrix product": "arithmetic floor",
    "loop": "plain loop in torch",
    "numba": "loops in numba, one thread",
    "torch.compile": "loop under torch.compile",
    "transformers": "transformers",
    "torch": "ours: torch",
    "c": "ours: C",
    "triton": "ours: Triton",
    "fla": "flash-linear-attention",
    "ours": "ours",
    "pip rwkv": "pip rwkv",
    "llama.cpp Q8_0": "llama.cpp, weights quantised to 8 bits",
    "llama.cpp Q4_0": "llama.cpp, weights quantised to 4 bits",
    "torch dynamic int8": "torch, weights quantised to 8 bits",
    "gemv": "its weights times vectors",
    "gemv in C": "its weights times vectors, in C",
    "gemm": "its products alone",
    "gemm, three times": "its products alone, and their gradients'",
}
# families in whose colours contenders are drawn
COLOURS = {
    "c": "rwkv4",
    "triton": "rwkv4",
    "torch": "gpt-neo",
    "loop": "pythia",
    "numba": "pythia",
    "torch.compile": "mamba",
    "transformers": "bloom",
    "fla": "opt",
}
OURS = ("triton", "c", "ours", "torch")
PRODUCT = "matrix product"  # its samples are of a product, its rows of the recurrence's multiply-adds at that speed
PRODUCTS = ("gemv", "gemv in C", "gemm", "gemm, three times")  # of a whole model's matrices
NOT_COMPARED = (*OURS, "floor", PRODUCT, *PRODUCTS)
EAGER = " eager"  # behind the names of those that ran as a CUDA graph too, and here without it
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
    printed = reached = goals(results)
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
            pictures = []
            if experiment == "kernels":
                pictures.append(_picture(chosen, name, f"{machine} · {device} · {dtype} · median of the rounds"))
            heading = f"{title.format(families=families)}, {machine}, {device} {dtype}"
            beside = list(_comparisons(chosen))
            texts = [text.format(families=families)] + [PRODUCT_TEXT] * bool((chosen.contender == PRODUCT).any())
            texts += [QUANTISED_TEXT] * bool(chosen.kl.notna().any())
            yield View(name, heading, texts, tables, pictures, printed, beside)
            printed = None


def _comparisons(chosen: pd.DataFrame) -> Iterator[Comparison]:
    """In each undisturbed race every implementation of ours that allocates, beside every contender that is not ours."""
    several = _several(chosen)
    for _, cell in chosen[~chosen.disturbed].groupby("cell", sort=False):
        theirs = cell[~cell.contender.map(_base).isin(NOT_COMPARED)]
        for ours in OURS:
            ran = cell[cell.contender.isin([ours, ours + EAGER])]
            for _, mine in ran.sort_values("contender").head(1).iterrows():  # as a graph, where it ran as one
                heading = f"{_name(mine)}, {_what(mine, several)} {_shape(mine)}, threads: {mine.threads}"
                yield from (_beside(heading, mine, other) for _, other in theirs.iterrows())


def _beside(heading: str, mine: pd.Series, other: pd.Series) -> Comparison:
    """By the ratios within the rounds."""
    ratios = [theirs / its for its, theirs in zip(mine.samples, other.samples, strict=False)]
    ratio = statistics.median(ratios)
    size = f"{numbers.spread(ratio, min(ratios), max(ratios), numbers.ratio)} x as fast"
    return Comparison(heading, TIME, _name(other), ratio - 1, size, apart=beyond_noise(min(ratios), max(ratios)))


def goals(results: Results) -> Table | None:
    """Each ratio of goals.csv that was measured undisturbed, beside its bound; None where none was."""
    frame = results.frame("kernels", "peers")
    if frame.empty:
        return None
    frame = frame[~frame.disturbed].copy()
    frame["channels"] = frame.channels.astype("Int64")
    bounds = pd.read_csv(GOALS, dtype=str)
    lines = []
    for machine, part in frame.groupby("machine", sort=False):
        for goal in bounds.to_dict("records"):
            keys = [key for key in ("experiment", "family", "device", "dtype", *SHAPE) if goal[key] != "-"]
            at = part[(part[keys].astype(str) == [goal[key] for key in keys]).all(axis=1)]
            for _, cell in at.groupby("cell", sort=False):  # what took turns
                slow, fast = (cell[cell.contender == goal[side]] for side in ("slower", "faster"))
                if len(slow) and len(fast):
                    lines.append(_line(goal, machine, slow.iloc[-1], fast.iloc[-1], at.label.nunique() > 1))
    note = (
        "ratio: the median of the ratios within the rounds, in brackets the least and the largest. error: how far the "
        "two, or ours and the oracle, are apart."
    )
    return Table("goals", "What was to be reached", pd.DataFrame(lines), note) if lines else None


def _line(goal: Mapping[Any, str], machine: object, slow: pd.Series, fast: pd.Series, several: bool) -> dict[str, str]:
    scale = slow.scale / fast.scale  # of floors, to the bytes that must move
    pairs = [scale * s / f for s, f in zip(slow.samples, fast.samples, strict=False)]
    ratio, bound = statistics.median(pairs), float(goal["bound"])
    compared = slow if slow.contender in ("c", "triton") or fast.contender == "ours" else fast
    met = ratio >= bound if goal["sense"] == "at least" else ratio <= bound
    return {
        "experiment": goal["experiment"],
        "machine": str(machine),
        "on": f"{goal['device']} {goal['dtype']}",
        "what": _what(slow, several),
        "shape": _shape(slow),
        "threads": goal["threads"],
        "time of": _name(slow),
        "by that of": _name(fast),
        "ratio": numbers.spread(ratio, min(pairs), max(pairs), numbers.ratio),
        "to be": f"{goal['sense']} {bound:g}",
        "reached": "yes" if met else "NO",
        "error": numbers.magnitude(compared.error),
    }


def _what(row: pd.Series, several: bool) -> str:
    """What was raced; whose it was where there are several."""
    return f"{row.what}, {row.label}" if several else str(row.what)


def _name(row: pd.Series) -> str:
    return _named(row.contender, row.runtime) + (", CUDA graph" if row.graphed else "")


def _named(contender: str, runtime: str | None = None) -> str:
    """What is before a comma by its name in tables; what follows says how it ran. runtime: of the model."""
    base = _base(contender)
    how = contender.removeprefix(base)
    name = "transformers as here" if (base, runtime) == ("ours", "transformers") else NAMES.get(base, base)
    return name + (", eager" if how == EAGER else how)


def _base(contender: str) -> str:
    """A contender without how it ran."""
    return contender.partition(",")[0].removesuffix(EAGER)


def _several(chosen: pd.DataFrame) -> bool:
    """Whether more than one model stands for one shape."""
    return bool(chosen.groupby(SHAPE, dropna=False).label.nunique().max() > 1)


def _shape(row: pd.Series) -> str:
    width = "" if pd.isna(row.channels) else f", {row.channels:.0f}"
    return f"({row.batch}, {row.tokens}{width})"


def _times(chosen: pd.DataFrame, name: str) -> Table:
    lines = []
    several, arithmetics = _several(chosen), bool((chosen.contender == PRODUCT).any())
    moved = bool(chosen.kl.notna().any())
    for _, part in chosen.groupby([*SHAPE, "cell"], sort=False, dropna=False):
        floors = part[part.contender.isin(["floor", *PRODUCTS])].value
        arithmetic = part[part.contender == PRODUCT].value
        for _, row in part.iterrows():
            share = numbers.percent(arithmetic.iloc[0] / row.value) if len(arithmetic) and not row.disturbed else "-"
            over_floor = numbers.ratio(row.value / floors.min()) if len(floors) and not row.disturbed else "-"
            lines.append(
                {
                    "what": _what(row, several),
                    "shape": _shape(row),
                    "threads": row.threads,
                    "contender": _name(row),
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
        names = map(_named, said.contender, said.runtime)
        lines = {"contender": list(names), "what it is": said.implementation}
        yield Table(f"{name}-implementations", "What each contender is", pd.DataFrame(lines))


def _picture(chosen: pd.DataFrame, name: str, footer: str) -> Picture:
    """Time of every contender against the size of k, one panel a direction."""
    fewest = chosen[chosen.threads == chosen.threads.min()].assign(size=lambda f: f.batch * f.tokens * f.channels)
    panels = []
    families = fewest.family.nunique() > 1
    for (family, what), part in fewest.groupby(["family" if families else "experiment", "what"], sort=False):
        series = []
        for (contender, variant), line in part.groupby(["contender", "variant"], sort=False):
            line = line.sort_values(["size", "batch"]).drop_duplicates("size")
            low, high = (list(line[edge] * 1e3) for edge in ("band_low", "band_high"))
            drawn_as = _base(str(contender))
            colour, label = COLOURS.get(drawn_as, drawn_as), f"{_named(str(contender))}{variant}"
            size, value = list(line["size"]), list(line.value * 1e3)
            apart = [(x, 1e3 * y) for x, values in zip(size, line.apart, strict=True) for y in values]
            crossed, dashed = list(line.disturbed), contender in ("floor", PRODUCT)
            series.append(Series(label, colour, size, value, low, high, dashed=dashed, apart=apart, crossed=crossed))
        heading = f"{looks.label(family)}, {what}" if families else str(what)
        panels.append(Panel(heading, "elements of k (B x T x C)", "milliseconds", series, log_x=10, log_y=10))
    threads = fewest.threads.iloc[0]
    title = "WKV: time of each implementation" + (f", {threads} thread" if threads else "")
    return Picture(name, title, panels, footer)


SHARED = {"batch", "tokens", "threads"}
SECTION = Section(
    views,
    {
        "kernels": Reading(rows, apart={"direction", *SHARED}, oldest=3, compared={"race_s": "time"}),
        "peers": Reading(rows, apart={"task", "context", *SHARED}, oldest=3, compared={"race_s": "time"}),
    },
)
