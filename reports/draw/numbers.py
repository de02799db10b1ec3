"""Numbers as a reader sees them, one way for each kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeGuard

MIB = 2**20
RULE_OF_THREE = 3  # where n answers are alike, at most 3 / n of all are otherwise, with 95 % confidence


def count(n: float | None) -> str:
    """A whole number with commas; a dash where there is none."""
    return f"{n:,.0f}" if _there(n) else "-"


def span(least: float, most: float, form: str = ",.0f") -> str:
    """Both ends, one where they are the same."""
    return f"{least:{form}}" + (f" to {most:{form}}" if most > least else "")


def tick(value: float) -> str:
    """Of a logarithmic axis, without a power of ten where thousands or millions say it."""
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if value >= 1e4 and value % 1e3 == 0 else f"{value:g}"


def millions(n: float, form: str = ".0f") -> str:
    return f"{n / 1e6:{form}} M"


def minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}"


def seconds(n: float) -> str:
    """To three significant digits below a hundred, whole ones above."""
    return f"{n:.3g}" if n < 100 else f"{n:,.0f}"


def mebibytes(n: float) -> str:
    """Of bytes, with the unit."""
    return f"{n / MIB:.2f} MiB"


def milliseconds(seconds: float, digits: int | None = None) -> str:
    """Of seconds; to three significant digits below a second and to none behind the point above, if not said."""
    if digits is not None:
        return f"{seconds * 1e3:.{digits}f}"
    return f"{seconds * 1e3:.3g}" if seconds < 1 else f"{seconds * 1e3:.0f}"


def ratio(x: float) -> str:
    return f"{x:.2f}"


def magnitude(error: float | None, up: bool = False) -> str:
    """One digit and a power of ten, of a bound rounded up; a dash where there is none."""
    if not _there(error):
        return "-"
    shown = f"{error:.0e}"
    return shown if not up or float(shown) >= error else f"{error + 0.5 * 10 ** math.floor(math.log10(error)):.0e}"


def with_error(value: float, error: float | None, form: str) -> str:
    """The value ± its standard error, where there is one. form: of both; a sign is the value's alone."""
    return f"{value:{form}}" + (f" ± {error:{form.lstrip('+')}}" if _there(error) else "")


def percent(share: float, error: float | None = None, digits: int = 1) -> str:
    """A share, and its standard error where there is one, in percent."""
    return with_error(100 * share, 100 * error if _there(error) else None, f".{digits}f")


def bound(n: float) -> float:
    """How far, at 95 % confidence, a share of which all or none of n answers were right may be from 1 or 0."""
    return min(1.0, RULE_OF_THREE / n)


def score(share: float, error: float | None, n: float | None, digits: int = 1) -> str:
    """A share of n independent answers, and its standard error where there is one, in percent; all and none of them,
    which have no error, with their 95 % bound. n: None for a score that is no share of answers, and has no bound.
    """
    if share not in (0, 1):
        return percent(share, error, digits)
    if n is None:
        return percent(share, digits=digits)
    sign, end = ("≥", 1 - bound(n)) if share else ("≤", bound(n))
    return f"{percent(share, digits=digits)} ({sign} {percent(end, digits=digits)})"


def points(difference: float, low: float | None = None, high: float | None = None, digits: int = 1) -> str:
    """A difference of two shares in percentage points with its sign, and its interval where there is one."""
    interval = f" ({100 * low:+.{digits}f} to {100 * high:+.{digits}f})" if _there(low) and _there(high) else ""
    return f"{100 * difference:+.{digits}f}{interval}"


def extremes(low: float, high: float, show: Callable[[float], str]) -> str:
    return f"{show(low)}-{show(high)}"


def spread(middle: float, low: float, high: float, show: Callable[[float], str]) -> str:
    """A median or mean, in brackets the least and the largest. show: what writes each of them."""
    return f"{show(middle)} ({extremes(low, high, show)})"


def p_value(p: float) -> str:
    return f"{p:.3f}" if p >= 0.0005 else "<0.001"


def _there(n: float | None) -> TypeGuard[float]:
    return n is not None and not math.isnan(n)
