"""Views of training: every run, the best rate of each model, and models beside each other over their seeds."""

from typing import Any

import pytest

from reports.records.record import Record
from reports.sentences import ONE_TRAINING, of_page
from reports.views import training
from reports.views.table import read
from reports.views.view import View
from tests.reports.views.test_learning import record


def trained(
    model: str, held_out: float, rate: float = 0.004, steps: int = 9, seed: int = 1, end: float = 0.0001, **more: Any
) -> Record:
    metrics = {"parameters": 1424768, "tokens": 4 * steps, "loss": 2.5, "held_out_loss": held_out}
    metrics |= {"tokens_per_s": 9000.0, "train_s": 90.0, "passes": 1.0, **more}
    samples = {"loss": [held_out + 3.0 - rate * i for i in range(steps)]}
    params = {"learning_rate": rate, "final_learning_rate": end, "steps": steps, "window": 2}
    return record("pretrain", model, metrics, samples, weights=f"fresh:{seed}", **params)


def view(*records: Record) -> View:
    (only,) = training.views(read(records))
    return only


def test_every_run_has_its_losses_and_the_best_rate_of_each_number_of_steps_is_drawn() -> None:
    made = view(
        trained("pocket-rwkv4", 2.0, rate=0.001, steps=3, passes=2.25),
        trained("pocket-rwkv4", 2.5, rate=0.002),
        trained("pocket-rwkv4", 2.25),  # a text that is longer than the training is cut before
    )
    frame = made.tables[0].frame
    assert "seed" not in frame
    assert list(frame["learning rate"]) == ["0.001", "0.002", "0.004"]
    assert list(frame["held-out loss"]) == ["2.0000", "2.5000", "2.2500"] and set(frame["minutes"]) == {"1.5"}
    assert list(frame["passes over the text"]) == ["2.2", "≤ 1", "≤ 1"]
    ranked = "Held-out loss after 9 steps, the most, the lowest first (nats a token): pocket RWKV-4 2.250."
    assert made.text == [f"{ranked} {ONE_TRAINING}"]
    assert not made.comparisons
    assert [panel.title.partition(",")[0] for panel in made.pictures[0].panels] == ["3 steps", "9 steps"]
    (line,) = made.pictures[0].panels[1].series
    assert list(line.x) == [18.0] and line.y[0] == pytest.approx(
        2.25 + 3.0 - 0.004 * 4
    )  # the median, of the better run


def test_a_rate_is_chosen_among_the_seeds_that_had_all_and_seeds_are_compared() -> None:
    runs = [trained("pocket-rwkv4", 2.0 + rate, rate=rate) for rate in (0.002, 0.001, 0.003)]
    runs += [trained("pocket-rwkv4", loss, rate=0.001, seed=seed) for seed, loss in ((2, 2.3), (3, 2.1))]
    runs += [trained("pocket-rwkv7", 1.0 + rate, rate=rate) for rate in (0.003, 0.002, 0.004)]
    runs += [trained("pocket-rwkv7", loss, rate=0.002, seed=seed) for seed, loss in ((2, 1.2), (3, 1.1))]
    runs += [trained("pocket-rwkv5", loss, seed=seed) for seed, loss in ((1, 2.2), (2, 1.9), (3, 2.1))]
    runs += [trained("pocket-rwkv6", loss, seed=seed) for seed, loss in ((1, 0.9), (2, 0.8))]
    made = view(*runs)
    assert list(made.tables[0].frame["seed"])[:5] == ["1", "1", "1", "2", "3"]
    assert made.text == [
        "Held-out loss after 9 steps, the most, the lowest first (nats a token): pocket RWKV-6 0.850 (0.800-0.900), "
        "pocket RWKV-7 1.101 (1.002-1.200), pocket RWKV-5 2.067 (1.900-2.200), pocket RWKV-4 2.134 (2.001-2.300).",
        training.SEEDS,
    ]
    (series,) = [line for line in made.pictures[0].panels[0].series if line.label == "pocket RWKV-7"]
    assert series.low is not None and series.low[0] < series.y[0] < series.high[0]
    (said,) = of_page([made.comparisons])
    after = "held-out loss after 9 steps"
    edge = "The best learning rate of a side was the lowest or the highest of those tried: another may be better."
    lone = "A side was trained at one learning rate alone: another may be better."
    alike = "pocket RWKV-4: 2.067 (1.900-2.200) beside 2.134 (2.001-2.300)"
    assert f"pocket RWKV-5, {after}: no difference shown from {alike}. {lone}" in said
    few = "not compared, since one side has fewer than 3 seeds:"
    assert any(
        sentence.startswith(f"pocket RWKV-7, {after}: lower than pocket RWKV-4: 1.101 (1.002-1.200) beside 2.134")
        and sentence.endswith(edge)
        for sentence in said
    )

    assert any(
        sentence.startswith(f"pocket RWKV-7, {after}: lower than pocket RWKV-5: 1.101 (1.002-1.200) beside 2.067")
        and f"{few} pocket RWKV-6" in sentence
        and sentence.endswith(lone)
        for sentence in said
    )


def test_nobody_is_compared_where_no_rate_has_three_seeds_and_one_training_is_said_to_be_one() -> None:
    apart = [
        trained(model, 2.0, seed=seed) for seed, model in enumerate(("pocket-rwkv4", "pocket-rwkv5", "pocket-rwkv7"))
    ]
    made = view(*apart)
    assert not made.comparisons and made.text[0].endswith(ONE_TRAINING)
    made = view(*(trained("pocket-pythia", 2.0, seed=seed) for seed in (1, 2, 3)))
    assert not made.comparisons and ONE_TRAINING not in made.text[0]
    ends = [trained("pocket-rwkv4", 2.0 + end, end=end) for end in (0.0001, 0.0002, 0.0003)]
    made = view(*ends, trained("pocket-rwkv5", 1.0, end=0.0001))
    assert not made.comparisons, "another final rate is no other seed"
    assert "pocket RWKV-4 (final learning rate 0.0002)" in set(made.tables[0].frame.model)


def test_a_side_between_two_rates_has_no_caution() -> None:
    runs = [
        trained(model, base + abs(rate - 0.002) + seed / 100, rate=rate, seed=seed)
        for model, base in (("pocket-rwkv4", 1.0), ("pocket-rwkv7", 2.0))
        for rate in (0.001, 0.002, 0.003)
        for seed in ((1, 2, 3) if rate == 0.002 else (1,))
    ]
    (one,) = view(*runs).comparisons
    assert not one.caution and not one.undecided and one.apart
    assert one.lead == pytest.approx(-1.0), "RWKV-7's loss is higher here"


def test_the_seed_that_chose_a_rate_is_left_out_where_three_others_are_there() -> None:
    swept = [trained("pocket-rwkv4", loss, rate=rate) for rate, loss in ((0.001, 1.3), (0.002, 1.0), (0.003, 1.2))]
    others = [trained("pocket-rwkv4", 1.0 + seed / 10, rate=0.002, seed=seed) for seed in (2, 3, 4)]
    lone = [trained("pocket-rwkv7", 1.25, rate=0.002, seed=seed) for seed in (1, 2, 3, 4)]
    made = view(*swept, *others, *lone)
    assert "pocket RWKV-7 1.250, pocket RWKV-4 1.300 (1.200-1.400)" in made.text[0]
    assert len(made.tables[0].frame) == 10, "each run stands in the table"
    (one,) = made.comparisons
    assert one.size == "1.250 beside 1.300 (1.200-1.400)" and one.lead == pytest.approx(0.05)
    (fewer,) = view(*swept, *others[:2], *lone).comparisons
    assert fewer.size == "1.250 beside 1.167 (1.000-1.300)", "two others are too few"
