"""What an experiment measures and what its parameters are, from its signature and its docstring."""

from __future__ import annotations

import inspect
import re
import textwrap
import typing
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from bench.experiments import EXPERIMENTS
from evals.experiment import NEEDED, AtLeast, Numbers, OneOf
from rwkv_core.errors import BadInput, did_you_mean

WIDTH = 120
SUBJECTS = {
    "model": "",
    "spec": " It needs no weights: the model gives sizes and a seed.",
    "none": " It needs no model.",
}
MANY = 12  # names, beyond which only some are shown


def overview() -> Iterator[str]:
    """A line for each experiment."""
    longest = max(map(len, EXPERIMENTS))
    for name in EXPERIMENTS:
        yield from _hanging(f"{name:{longest}}  {_documented(name)[0]}", longest + 2)


def experiment(name: str) -> Iterator[str]:
    """What an experiment measures, each parameter with type, bounds and default, what it returns and raises.

    Raises BadInput for an unknown one.
    """
    if name not in EXPERIMENTS:
        raise BadInput(f"unknown experiment {name!r}{did_you_mean(name, EXPERIMENTS)}")
    summary, lines, rest = _documented(name)
    yield from textwrap.wrap(summary, WIDTH)
    yield ""
    hints = EXPERIMENTS[name].hints
    for key, default in EXPERIMENTS[name].defaults.items():
        yield from _hanging(
            f"{key}: {_type(hints[key])}; {'needed' if default is NEEDED else f'default {default!r}'}", 4
        )
        yield from textwrap.wrap(lines[key], WIDTH, initial_indent="    ", subsequent_indent="    ")
    yield ""
    yield from textwrap.wrap(rest, WIDTH)
    yield ""
    yield from textwrap.wrap(_treated(name), WIDTH)


def _documented(name: str) -> tuple[str, dict[str, str], str]:
    """Of a docstring the summary, each parameter's line, and what stands behind them."""
    text = inspect.getdoc(EXPERIMENTS[name].run) or ""
    summary, _, body = text.partition("\n\n")
    described, _, rest = body.partition("\n\n")
    entries = re.findall(r"^(\w+): (.*(?:\n .*)*)", described, re.M)
    return _joined(summary), {key: _joined(line) for key, line in entries}, _joined(rest)


def _type(hint: Any) -> str:
    mark = None
    if get_origin(hint) is typing.Annotated:
        hint, mark = get_args(hint)
    if get_origin(hint) is Literal:
        return " or ".join(get_args(hint))
    if isinstance(mark, OneOf):
        names = list(mark.names())
        return "one of " + ", ".join(names[:MANY]) + (f" and {len(names) - MANY} more" if len(names) > MANY else "")
    if isinstance(mark, Numbers):
        return f"str of rising whole numbers of at least {mark.least}"
    return hint.__name__ + (f" of at least {mark.least}" if isinstance(mark, AtLeast) else "")


def _treated(name: str) -> str:
    """How the rig treats its cells."""
    entry = EXPERIMENTS[name]
    alone = "Timed: each cell alone in a fresh process." if entry.timed else "Not timed: cells may run side by side."
    weights = SUBJECTS[entry.subject]
    files = f" Named by their content: {', '.join(entry.reads)}." if entry.reads else ""
    return f"{alone}{weights}{files} Version {entry.version}."


def _hanging(line: str, indent: int) -> list[str]:
    return textwrap.wrap(line, WIDTH, subsequent_indent=" " * indent)


def _joined(text: str) -> str:
    return " ".join(text.split())
