"""Views of scoring beside lm-eval's HFLM: whole tasks' seconds and what they come to, and whether answers agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

import configs
from reports.draw import looks, numbers
from reports.draw.table import Table
from reports.reading import Kind, Reading, Row
from reports.records.record import Record
from reports.results import Results
from reports.statistics import totals
from reports.statistics.bands import spread
from reports.statistics.totals import Tasks, Times
from reports.views.families import ordered, ours
from reports.views.view import DISTURBED, Section, View, disturbed_note, mark, parts, task_titles

WHERE = ["machine", "device", "dtype", "threads", "weights"]
OURS, HFLM = "ours", "HFLM"
TOTALS = ["model", "tasks", "ours, s", "HFLM, s", "at", "ratio", "geometric mean", "largest part", "without it"]
TEXT = (
    "Whole zero-shot tasks by this suite's scoring and by HFLM, lm-eval's own model, in turn in one process, with the "
    "same weights, threads and data: from the making of the requests to the metrics, after loading and a warm-up. HFLM "
    "is as its users have it, at each of its batch sizes; ours makes its own batches."
)


@dataclass(frozen=True)
class Timed:
    """A model's task: the medians of the rounds, and each of them."""

    medians: Times
    rounds: Sequence[Times]
    disturbed: bool

    @classmethod
    def of(cls, rows: pd.DataFrame) -> Timed:
        """Of the rows of one or more cells: an undisturbed one, then the one with the most rounds."""
        cell = rows[rows.cell == rows.sort_values(["disturbed", "repeats"], ascending=[False, True]).cell.iloc[-1]]
        mine, theirs = cell[cell.contender == OURS].iloc[0], cell[cell.contender == HFLM].astype({"batch": int})
        by_size = dict(zip(theirs.batch, theirs.samples, strict=True))
        rounds = [
            Times(seconds, {size: by_size[size][i] for size in by_size}) for i, seconds in enumerate(mine.samples)
        ]
        return cls(Times(mine.value, dict(zip(theirs.batch, theirs.value, strict=True))), rounds, bool(mine.disturbed))


def rows(record: Record) -> Iterator[Row]:
    """Seconds of the whole task, the spread over the rounds, ours and HFLM's at each batch size; the pure forward's
    seconds over ours; where answers were compared, the largest difference of a log-likelihood and what else is not the
    same.
    """
    metrics = record.metrics
    shared = {"docs": metrics["docs"], "requests": metrics["requests"]}
    for name, seconds in record.samples["seconds"].items():
        whose = {"contender": OURS} if name == OURS else {"contender": HFLM, "batch": int(name)}
        yield {**spread("harness_s", seconds, samples=seconds, **whose), **shared}
    if pure := record.samples.get("forward_s"):  # of the version 3 on
        shares = (forward / mine for forward, mine in zip(pure, record.samples["seconds"][OURS], strict=True))
        yield {**spread("forward_share", shares), **shared}
    if metrics["differing"] is not None:
        differing = "; ".join(metrics["differing"])
        yield {"metric": "difference", "value": metrics["difference"], "differing": differing, **shared}


def views(results: Results) -> Iterator[View]:
    """One section for each machine, device, type, number of threads and kind of weights. Times at batch size 1 alone
    are not shown: it is seldom HFLM's best.
    """
    frame = results.frame("harness")
    if frame.empty:
        return
    frame = ordered(frame, "family", "parameters")
    known = {name: str(entry["label"]) for name, entry in configs.read("tasks").items()}
    for number, key, part in parts(frame, WHERE):
        machine, device, dtype, threads, weights = key
        name = f"harness{number}"
        titles = task_titles(part, known)
        seconds = part[(part.metric == "harness_s") & (part.groupby("cell").batch.transform("max") > 1)]
        compared = part[part.metric == "difference"]
        text, tables = [TEXT], []
        if not seconds.empty:
            timed = {
                str(label): {task: Timed.of(rows) for task in titles if len(rows := cells[cells.task == task])}
                for label, cells in seconds.groupby("label", sort=False)
            }
            text += _kernels(seconds)
            tables += [_totals(timed, titles, name), _times(timed, titles, seconds, name)]
        if not (shares := part[part.metric == "forward_share"]).empty:
            tables.append(_forward(shares, titles, name))
        if not compared.empty:
            text.append(_sameness(compared, titles))
            tables.append(_answers(compared, titles, name))
        on = f"{mark(weights)}, {machine}, {device} {dtype}, threads: {threads:.0f}"
        yield View(name, f"Scoring beside lm-eval's HFLM, {on}", text, tables, printed=tables[0] if tables else None)


def _kernels(seconds: pd.DataFrame) -> Iterator[str]:
    """What the ratios of our own models and of the others are of."""
    native = seconds[(seconds.runtime == "native") & seconds.family.map(ours)]
    mixed, alone = (
        ", ".join(looks.label(family) for family in dict.fromkeys(families))
        for families in (native.family, seconds.family.drop(native.index))
    )
    if mixed:
        kernels = ", ".join(dict.fromkeys(native.attention.dropna()))
        yield (
            f"{mixed}: HFLM runs transformers' implementation in Python, ours this suite's, with its kernels "
            f"({kernels}), so that a ratio mixes scoring and kernels."
        )
    if alone:
        yield f"{alone}: transformers computes the model on both sides, so that a ratio is of the scoring alone."


def _totals(timed: Mapping[str, Mapping[str, Timed]], titles: Mapping[str, str], name: str) -> Table:
    frame = pd.DataFrame([_total(label, tasks, titles) for label, tasks in timed.items()], columns=TOTALS)
    several = any(len(one.rounds) > 1 for tasks in timed.values() for one in tasks.values())
    note = (
        "Sums of the medians over the tasks, at the one batch size of HFLM at which its sum is least; the geometric "
        "mean of the tasks' ratios, each at HFLM's best batch size for it; the task with the largest part of the "
        "difference of the sums, and the ratio without it, at the batch size that is best for the others. "
        + ("In brackets the least and the largest of the rounds." if several else "One round: no spread was measured.")
        + " Disturbed tasks are in none of this."
    )
    return Table(f"{name}-totals", "HFLM's time over ours, all tasks", frame, note)


def _total(label: str, tasks: Mapping[str, Timed], titles: Mapping[str, str]) -> dict[str, str]:
    clean = {task: one for task, one in tasks.items() if not one.disturbed}
    count = f"{len(clean)}" + (f" of {len(tasks)}" if len(clean) < len(tasks) else "")
    line = {**dict.fromkeys(TOTALS, "-"), "model": label, "tasks": count}
    if not clean:
        return line
    medians: Tasks = {task: one.medians for task, one in clean.items()}
    fewest = min(len(one.rounds) for one in clean.values())
    rounds: list[Tasks] = [{task: one.rounds[i] for task, one in clean.items()} for i in range(fewest)]
    size, sizes = totals.best(medians), {task: totals.best({task: times}) for task, times in medians.items()}
    line |= {
        "ours, s": numbers.seconds(sum(times.ours for times in medians.values())),
        "HFLM, s": numbers.seconds(sum(times.theirs[size] for times in medians.values())),
        "at": str(size),
        "ratio": _shown(lambda some: totals.ratio(some, size), medians, rounds),
        "geometric mean": _shown(lambda some: totals.geometric_mean(some, sizes), medians, rounds),
    }
    task, share = totals.largest(medians, size)
    line["largest part"] = titles[task] + ("" if share is None else f", {numbers.percent(share)}%")
    others, *others_rounds = [{name: some[name] for name in some if name != task} for some in (medians, *rounds)]
    if others:
        rest = totals.best(others)
        line["without it"] = f"{_shown(lambda some: totals.ratio(some, rest), others, others_rounds)} (at {rest})"
    return line


def _shown(ratio: Callable[[Tasks], float], medians: Tasks, rounds: Sequence[Tasks]) -> str:
    """The ratio of the medians, and the least and the largest of several rounds."""
    each = [ratio(one) for one in rounds]
    if len(each) == 1:
        return numbers.ratio(ratio(medians))
    return numbers.spread(ratio(medians), min(each), max(each), numbers.ratio)


def _times(
    timed: Mapping[str, Mapping[str, Timed]], titles: Mapping[str, str], seconds: pd.DataFrame, name: str
) -> Table:
    sizes = {
        str(label): ", ".join(map(str, sorted(map(int, cells.batch.dropna().unique()))))
        for label, cells in seconds.groupby("label", sort=False)
    }
    lines = []
    for task, title in titles.items():
        docs = seconds[seconds.task == task].docs
        if docs.empty:
            continue
        line = {"task": title, "items": numbers.span(docs.min(), docs.max(), ".0f")}
        for label, tasks in timed.items():
            line[f"{label}, HFLM at {sizes[label]}"] = _cell(task, tasks[task]) if task in tasks else "-"
        lines.append(line)
    note = (
        "Seconds of a whole task: ours / HFLM's at each of its batch sizes / the least of these over ours (above 1: "
        "ours is faster). Medians of the rounds; where there are several, in brackets the least and the largest ratio."
    )
    return Table(name, "Whole tasks, ours and HFLM's", pd.DataFrame(lines), note + disturbed_note(seconds))


def _cell(task: str, one: Timed) -> str:
    theirs = ", ".join(numbers.seconds(one.medians.theirs[size]) for size in sorted(one.medians.theirs))
    times = f"{numbers.seconds(one.medians.ours)} / {theirs}"
    if one.disturbed:
        return f"{times}{DISTURBED} / -"
    medians, rounds = {task: one.medians}, [{task: times} for times in one.rounds]
    size = totals.best(medians)
    return f"{times} / {_shown(lambda some: totals.ratio(some, size), medians, rounds)}"


def _forward(shares: pd.DataFrame, titles: Mapping[str, str], name: str) -> Table:
    lines = [
        {"task": title}
        | {str(label): _share(cells[cells.task == task]) for label, cells in shares.groupby("label", sort=False)}
        for task, title in titles.items()
    ]
    note = (
        "The pure forward's time of what ours read and scored, over ours: tokens at the best of passes of 8 x 256, "
        "4 x 256 and 16 x 128 of them, without padding or states, and the product with the vocabulary at 512 positions "
        "together. Above 100% where smaller batches, or parts of the vocabulary, are faster."
    )
    return Table(f"{name}-forward", "Ours beside the pure forward", pd.DataFrame(lines), note + disturbed_note(shares))


def _share(cells: pd.DataFrame) -> str:
    if cells.empty:
        return "-"
    one = cells.sort_values(["disturbed", "repeats"], ascending=[False, True]).iloc[-1]
    if one.disturbed:
        return DISTURBED
    if one.repeats == 1:
        return f"{numbers.percent(one.value, digits=0)}%"
    return numbers.spread(one.value, one.low, one.high, lambda share: f"{numbers.percent(share, digits=0)}%")


def _sameness(compared: pd.DataFrame, titles: Mapping[str, str]) -> str:
    """In a sentence, how far all answers are from HFLM's."""
    of = f"{compared.label.nunique()} models on {compared.task.nunique()} tasks"
    counts = f"{numbers.count(compared.requests.sum())} requests of {of}"
    other = compared[compared.differing != ""]
    where = ", ".join(other.label + " on " + other.task.map(titles))
    same = "every greedy flag and metric is the same (perplexity within 1e-4 of it)"
    rest = f"something else differs too: {where}" if where else same
    return (
        f"Answers at HFLM's batch size 1, its softmax in float64: over {counts} log-likelihoods are at most "
        f"{numbers.magnitude(compared.value.max(), up=True)} apart; {rest}."
    )


def _answers(compared: pd.DataFrame, titles: Mapping[str, str], name: str) -> Table:
    lines = []
    for label, part in compared.groupby("label", sort=False):
        scored = part.dropna(subset="value")
        differing = [
            f"{titles[task]}: {what}" for task, what in part[["task", "differing"]].to_numpy().tolist() if what
        ]
        lines.append(
            {
                "model": label,
                "tasks": len(part),
                "items": numbers.span(part.docs.min(), part.docs.max(), ".0f"),
                "requests": numbers.count(part.requests.sum()),
                "largest difference": numbers.magnitude(part.value.max()),
                "on": titles[scored.task.iloc[int(scored.value.argmax())]] if len(scored) else "-",
                "what else differs": "; ".join(differing) or "nothing",
            }
        )
    note = (
        "The largest difference of a log-likelihood from HFLM's at batch size 1; and greedy flags, generated texts and "
        "metrics that are not the same (ours for HFLM's). items: of a task, the least and the most."
    )
    return Table(f"{name}-answers", "Answers beside HFLM's", pd.DataFrame(lines), note)


APART = {"task", "rounds", "threads"}
COMPARED: dict[str, Kind] = {"harness_s": "time"}
SECTION = Section(views, {"harness": Reading(rows, APART, line_of_cell=True, items="items", compared=COMPARED)})
