"""Which of the measured models fit a context, a batch and a memory, what they would take, and who wins from where."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from reports.draw import numbers
from reports.draw.table import Table
from reports.forecast import Estimate, Forecast
from reports.statistics.crossing import Point, crossing
from reports.views import crossings, curves
from reports.views.families import compared

MODEL = ["label", "dtype", "weights"]
FARTHEST = 4  # times the longest measured context; beyond it the noise of short ones decides
NOTE = (
    "Medians of what was measured, in brackets the least and the largest; ~ : not measured at this context and batch, "
    f"but reckoned from what was, as the last column says, up to {FARTHEST} times the longest measured context. "
    "12 tasks: the mean of the zero-shot scores."
)


@dataclass(frozen=True)
class Question:
    """context: tokens. batch: sequences. memory: bytes that there are for weights, caches and what is worked with."""

    context: int
    batch: int
    memory: float


@dataclass(frozen=True)
class _Candidate:
    label: str
    dtype: str
    family: str
    parameters: float
    most_tokens: float  # that its positions allow
    joules: float | None  # a token
    forecast: Forecast

    @classmethod
    def of(cls, rows: pd.DataFrame) -> _Candidate:
        first = rows.iloc[0]
        most, joules = (rows[rows.metric == metric].value for metric in ("most_tokens", "joules"))
        return cls(
            str(first.label),
            str(first["dtype"]),
            str(first.family),
            float(first.parameters),
            float(most.iloc[0]) if len(most) else math.inf,
            float(joules.median()) if len(joules) else None,
            Forecast(rows),
        )

    def lacks(self, question: Question) -> str:
        """Why it cannot answer; empty where it can."""
        if question.context > self.most_tokens:
            return f"has {numbers.count(self.most_tokens)} positions"
        needed = self.forecast.memory(question.context, question.batch)
        if needed > question.memory:
            return f"needs {needed / 1e9:.1f} GB"
        longest = self.forecast.longest_measured
        return f"measured to {numbers.count(longest)} tokens" if question.context > FARTHEST * longest else ""


def answer(frame: pd.DataFrame, question: Question, quality: Mapping[str, str]) -> Iterator[Table | str]:
    """A table of the models, those that fit first, the fastest at the top; then a sentence for each pair of like size.

    frame: rows of the experiment decode, of one machine and device, nothing disturbed. quality: of models by label.
    """
    candidates = [_Candidate.of(rows) for _, rows in frame.groupby(MODEL, sort=False)]
    step = {id(one): one.forecast.step(question.context, question.batch) for one in candidates}
    candidates.sort(key=lambda one: (bool(one.lacks(question)), step[id(one)].value))
    lines = [_line(one, step[id(one)], question, quality) for one in candidates]
    title = f"{question.context:,} tokens of context, batch {question.batch}, {question.memory / 1e9:g} GB"
    yield Table("advice", title, pd.DataFrame(lines), NOTE)
    yield from _sentences([one for one in candidates if not one.lacks(question)], question)


def _line(one: _Candidate, step: Estimate, question: Question, quality: Mapping[str, str]) -> dict[str, str]:
    lacks = one.lacks(question)
    line = {"model": one.label, "type": one.dtype, "fits": lacks or "yes"}
    if lacks:
        return line
    first = one.forecast.first_token(question.context, question.batch)
    return line | {
        "memory, GB": f"{one.forecast.memory(question.context, question.batch) / 1e9:.2f}",
        "ms a token": _shown(step, numbers.milliseconds),
        "tokens/s": f"{question.batch / step.value:.1f}",
        "first token, s": _shown(first, numbers.seconds),
        "tokens a joule": f"{1 / one.joules:.2g}" if one.joules else "unavailable",
        "12 tasks": quality.get(one.label, "-"),
        "measured": step.extrapolated or "here",
    }


def _shown(estimate: Estimate, show: Callable[[float], str]) -> str:
    return ("~" if estimate.extrapolated else "") + numbers.spread(*estimate[:3], show)


def _sentences(candidates: Sequence[_Candidate], question: Question) -> Iterator[str]:
    """Who takes less time a token from which context on, of models of one type and size."""
    for one, other in itertools.permutations(candidates, 2):
        alike = one.dtype == other.dtype and curves.size(one.parameters) == curves.size(other.parameters)
        if not alike or not compared(one.family, other.family):
            continue
        most = min(one.forecast.longest_measured, other.forecast.longest_measured)
        places = [2**i for i in range(4, 25) if 2**i <= max(most, question.context)]
        first, second = ([Point(*each.forecast.step(n, question.batch)[:3]) for n in places] for each in (one, other))
        place = crossings.shown(crossing(places, first, second), places[0], places[-1])
        beyond = f"; beyond {most:,} tokens reckoned" if places[-1] > most else ""
        yield (
            f"{one.label} takes less time a token than {other.label} ({one.dtype}, batch {question.batch}) from this "
            f"context on: {place}{beyond}."
        )
