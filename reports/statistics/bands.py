"""Repeats of a time -> their median, their extremes, and the band that a figure draws."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

# Those repeats of a time are apart, and outside a figure's band, that lie further from the median than both: three
# standard deviations as the median distance from it gives them (of three repeats: the smaller of two gaps), ...
DEVIATIONS = 3 * 1.4826
NEAR = 0.1  # ... and this part of the median, since three repeats may agree by chance


def spread(metric: str, values: Iterable[float], **more: Any) -> dict[str, Any]:
    """The median of the repeats, with the least and the largest; the same of those that lie together, the band of a
    figure, and the others; all of them.
    """
    values = list(values)
    median = statistics.median(values)
    reach = max(DEVIATIONS * statistics.median(abs(value - median) for value in values), NEAR * abs(median))
    together = [value for value in values if abs(value - median) <= reach]
    return {
        "metric": metric,
        "value": median,
        "low": min(values),
        "high": max(values),
        "band_low": min(together),
        "band_high": max(together),
        "apart": [value for value in values if abs(value - median) > reach],
        "repeats": len(values),
        "samples": values,
        **more,
    }
