"""Numbers as tables show them."""

import math

import pytest

from reports.draw import numbers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (numbers.count(1234567.0), "1,234,567"),
        (numbers.count(None), "-"),
        (numbers.count(math.nan), "-"),
        (numbers.span(1, 2000), "1 to 2,000"),
        (numbers.span(2000, 2000, ".0f"), "2000"),
        (numbers.tick(0.001), "0.001"),
        (numbers.tick(16384), "16384"),
        (numbers.tick(500_000), "500k"),
        (numbers.tick(2e6), "2M"),
        (numbers.millions(1515106304), "1515 M"),
        (numbers.millions(1515106304, ",.1f"), "1,515.1 M"),
        (numbers.minutes(90), "1.5"),
        (numbers.mebibytes(3 * 2**19), "1.50 MiB"),
        (numbers.milliseconds(0.0012345), "1.23"),
        (numbers.milliseconds(12.345), "12345"),
        (numbers.milliseconds(0.0012345, 1), "1.2"),
        (numbers.ratio(0.5), "0.50"),
        (numbers.magnitude(1.4e-7), "1e-07"),
        (numbers.magnitude(None), "-"),
        (numbers.with_error(1.5, 0.25, "+.2f"), "+1.50 ± 0.25"),
        (numbers.with_error(1.5, math.nan, ".1f"), "1.5"),
        (numbers.percent(0.5), "50.0"),
        (numbers.percent(0.5, 0.0123, digits=2), "50.00 ± 1.23"),
        (numbers.percent(0.25, digits=0), "25"),
        (numbers.score(0.5, 0.0123, 100, 2), "50.00 ± 1.23"),
        (numbers.score(0.5, None, 100), "50.0"),
        (numbers.score(1.0, 0.0, 100), "100.0 (≥ 97.0)"),
        (numbers.score(0.0, 0.0, 400, 2), "0.00 (≤ 0.75)"),
        (numbers.score(1.0, None, 2), "100.0 (≥ 0.0)"),
        (numbers.score(1.0, 0.0, None), "100.0"),
        (numbers.points(-0.015), "-1.5"),
        (numbers.points(0.02, -0.01, 0.05, digits=2), "+2.00 (-1.00 to +5.00)"),
        (numbers.extremes(0.1, 0.2, numbers.percent), "10.0-20.0"),
        (numbers.spread(0.15, 0.1, 0.2, numbers.percent), "15.0 (10.0-20.0)"),
        (numbers.p_value(0.0005), "0.001"),
        (numbers.p_value(0.0004), "<0.001"),
    ],
)
def test_each_kind_is_written_in_one_way(text: str, expected: str) -> None:
    assert text == expected
