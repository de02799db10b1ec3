"""Sentences: who is named, what is corrected, what is warned of."""

import itertools

import pytest

from reports.sentences import AT, ON, TIME, Comparison, beyond_noise, of_page
from reports.statistics.holm import adjusted


def test_holms_p_is_that_of_the_closed_test() -> None:
    """A hypothesis falls where each set of hypotheses that holds it falls by Bonferroni: the definition, in full."""
    ps = [0.01, 0.04, 0.03, 0.005, 0.6, 0.0125]
    subsets = [s for size in range(1, len(ps) + 1) for s in itertools.combinations(range(len(ps)), size)]
    closed = [max(min(1, len(s) * min(ps[j] for j in s)) for s in subsets if i in s) for i in range(len(ps))]
    assert adjusted(ps) == pytest.approx(closed)
    assert adjusted([]) == []


def test_wins_losses_and_the_rest_stand_in_one_sentence() -> None:
    made = [
        Comparison("A against B", ON, "x", 0.1, "+10", p=0.001),
        Comparison("A against B", ON, "y", -0.2, "-20", p=0.001),
        Comparison("A against B", ON, "z", 0.3, "+30", p=0.2),
    ]
    ((rule, sentence),) = of_page([made])
    assert sentence == "A against B: ahead on x: +10; behind on y: -20; no difference shown on z."
    assert "after all 3 tests of this page" in rule


def test_the_tests_of_a_page_are_corrected_together() -> None:
    one = Comparison("A against B", ON, "x", 0.1, "+10", p=0.02)
    assert of_page([[one]])[0][1].startswith("A against B: ahead on x")
    others = [Comparison("C against D", AT, "y", 0.1, "+10", p=0.9) for _ in range(2)]
    assert of_page([[one], others])[0][1] == "A against B: no difference shown on x."


def test_without_a_test_the_interval_decides() -> None:
    apart, within = (Comparison("A", TIME, item, 0.1, "0.9 x", apart=item == "B") for item in "BC")
    assert of_page([[apart, within]]) == [["A: faster than B: 0.9 x; no difference shown from C."]]
    assert of_page([[], [apart]]) == [[], ["A: faster than B: 0.9 x."]]


def test_a_caution_of_all_stands_once_and_that_of_some_beside_those_alone() -> None:
    first, second = (Comparison(f"{name} against B", AT, "x", 1, "+1", apart=True, caution="Two.") for name in "AC")
    rule, *sentences = of_page([[first, second]])[0]
    assert rule == "Two." and not any("Two." in sentence for sentence in sentences)
    third = Comparison("A against B", AT, "y", 1, "+2", apart=True)
    assert of_page([[first, third]])[0] == ["A against B: ahead at x: +1. Two.", "A against B: ahead at y: +2."]


def test_what_cannot_be_decided_is_shown_with_its_numbers_and_is_neither_win_nor_loss() -> None:
    made = [
        Comparison("A", ON, item, -1, "18 beside 100", apart=True, undecided=why)
        for item, why in (("x", "few seeds"), ("y", "no text"))
    ]
    assert of_page([made]) == [
        ["A: not compared, since few seeds: x: 18 beside 100; not compared, since no text: y: 18 beside 100."]
    ]


@pytest.mark.parametrize("low,high,beyond", [(1.2, 1.5, True), (0.5, 0.9, True), (1.05, 2, False), (0.5, 1.2, False)])
def test_a_ratio_of_times_is_named_beyond_a_tenth(low: float, high: float, beyond: bool) -> None:
    assert beyond_noise(low, high) is beyond
