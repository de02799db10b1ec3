"""Long Range Arena's views: floors and published numbers beside the measured ones; mixers against length."""

from dataclasses import replace
from typing import Any

import pytest

from reports.published import paper
from reports.records.record import Record
from reports.sentences import of_page
from reports.views import encoders, lra
from reports.views.table import read
from tests import make
from tests.make import PROVENANCE, measured_elsewhere

PARAMS = {"protocol": "pocket", "direction": "both", "length": 256, "pixels": False, "steps": 20, "batch": 8}
PARAMS |= {"layers": 2, "width": 32, "heads": 2, "inner": 64, "eval_every": 10, "seed": 0}
PARAMS |= {"dropout": 0.0, "warmup": 0.1, "weight_decay": 0.05}


def refused(task: str, mixer: str) -> Record:
    cell = make.cell("lra", None, {**PARAMS, "task": task, "mixer": mixer}, version=2)
    return make.record(cell, status="unsupported", error="too many parameters")


def trained(task: str, mixer: str, title: str, published: str, accuracy: float, **more: Any) -> Record:
    metrics = {"accuracy": accuracy, "validation_accuracy": accuracy + 0.01, "best_step": 20}
    metrics |= {"majority": 0.2, "validation_majority": 0.25}
    metrics |= {"docs": 100, "parameters": 12000, "budget": 9000, "title": title, "published": published}
    metrics |= {
        "inner": 64,
        "trained": 500,
        "train_s": 90.0,
        "data_source": "generated" if task == "listops" else "files",
        "data_fingerprint": task,
        **({"root": 0.37, "validation_root": 0.33} if task == "listops" else {}),
    }
    params = {**PARAMS, "task": task, "mixer": mixer, "learning_rate": 0.01, **more}
    samples = {"validation": [[10, 0.3], [20, accuracy + 0.01]]}
    return make.record(make.cell("lra", None, params, version=2), metrics, samples)


def raced(seconds: dict[str, list[float]], titles: dict[str, str], tokens: int, **changes: Any) -> Record:
    """A record of `encoders` on one thread. seconds: of the mixer, which is named first, and of attention."""
    metrics = {"errors": {}, "graphed": [], "channels": 64, "threads": 1, "titles": titles}
    metrics |= {"budget": dict.fromkeys(seconds, 100), "inner": dict.fromkeys(seconds, 64)}
    metrics["peak_bytes"] = {name: (1 + (name == "rwkv4")) * 2**20 for name in seconds}
    params = {"mixer": next(iter(seconds)), "direction": "both", "tokens": tokens, "batch": 1}
    params |= {"layers": 1, "width": 64, "heads": 4, "inner": 256, **changes}
    return make.record(make.cell("encoders", None, params, version=3, threads=1), metrics, {"seconds": seconds})


def test_scores_stand_beside_floors_and_published_numbers() -> None:
    records = [
        trained("listops", "rwkv4", "RWKV-4", "RWKV", 0.5),
        trained("image", "rwkv4", "RWKV-4", "RWKV", 0.3),
        trained("listops", "rwkv4", "RWKV-4", "RWKV", 0.4, direction="causal"),
        refused("image", "aft"),
    ]
    (view,) = lra.views(read(records[::-1]))
    scores = view.tables[0].frame.set_index("model")
    assert scores.index.tolist() == ["always the majority", "root operator", "RWKV-4", "RWKV-4, causal", "aft"]
    both = scores.loc["RWKV-4"]
    assert (both["ListOps, generated"], both["ListOps, published"], both["average"]) == ("50.0 ± 5.0", "55.88", "40.0")
    assert (both["Image"], both["Image, published"]) == ("30.0 ± 4.6", "70.53")
    assert scores.loc["RWKV-4, causal"][["ListOps, generated", "Image", "average"]].tolist() == ["40.0 ± 4.9", "-", "-"]
    assert scores.loc["always the majority", "Image"] == "20.0"
    assert scores.loc["root operator", "ListOps, generated"] == "37.0"
    assert scores.loc["aft", "why not"] == "Image: too many parameters"
    assert "not comparable" in view.tables[0].note
    assert [panel.title for panel in view.pictures[0].panels] == ["ListOps", "Image"]
    assert view.pictures[0].panels[0].series[0].y == pytest.approx([30, 51])
    assert view.pictures[1].panels[0].series[0].x == pytest.approx([1.5])
    assert [line.hollow for line in view.pictures[1].panels[0].series[:2]] == [False, True]
    for picture, majority, root in zip(view.pictures, (25, 20), (33, 37), strict=True):  # of validation, of the test
        listops, image = ({line.label: list(line.y) for line in panel.series} for panel in picture.panels)
        assert listops["root operator"] == pytest.approx([root] * 2) and "root operator" not in image
        assert listops["always the majority"] == image["always the majority"] == pytest.approx([majority] * 2)


def test_seeds_are_pooled_and_shown_as_a_range() -> None:
    records = [trained("listops", "s4", "S4D", "S4", score, seed=n) for n, score in enumerate((0.3, 0.4, 0.8))]
    (view,) = lra.views(read(records))
    assert view.tables[0].frame.set_index("model").loc["S4D", "ListOps, generated"] == "50.0 (30.0-80.0)"
    assert view.tables[2].frame.seeds.tolist() == [3]


def test_of_several_rates_the_best_on_validation_is_shown() -> None:
    records = [
        trained("image", "s4", "S4D", "S4", score, learning_rate=rate) for score, rate in ((0.3, 0.1), (0.4, 0.01))
    ]
    records[0].metrics["accuracy"] = 0.9
    (view,) = lra.views(read(records))
    assert view.tables[0].frame.set_index("model").loc["S4D", "Image"] == "40.0 ± 4.9"
    assert view.tables[2].frame.rate.tolist() == ["0.1 (not chosen)", "0.01"]
    assert [panel.series[0].y for picture in view.pictures for panel in picture.panels] == [[30, 41], [40]]


def test_a_lucky_seed_of_another_rate_does_not_go_before_the_mean_of_several() -> None:
    records = [trained("image", "s4", "S4D", "S4", 0.4, learning_rate=0.1)]
    records += [trained("image", "s4", "S4D", "S4", score, seed=seed) for seed, score in enumerate((0.5, 0.2))]
    (view,) = lra.views(read(records))
    assert view.tables[0].frame.set_index("model").loc["S4D", "Image"] == "35.0 (20.0-50.0)"
    assert view.tables[2].frame[["rate", "seeds"]].to_numpy().tolist() == [["0.1 (not chosen)", 1], ["0.01", 2]]


def test_other_data_or_sizes_stand_in_a_table_of_their_own() -> None:
    records = [
        trained("listops", "rwkv4", "RWKV-4", "RWKV", 0.3),
        trained("listops", "attention", "attention", "Transformer", 0.4),
        trained("listops", "rwkv4", "RWKV-4", "RWKV", 0.9, length=64),
        trained("image", "rwkv4", "RWKV-4", "RWKV", 0.5),
    ]
    whole, other = lra.views(read(records))
    assert whole.tables[0].frame.set_index("model").loc["RWKV-4", ["ListOps, generated", "Image"]].tolist() == [
        "30.0 ± 4.6",
        "50.0 ± 5.0",
    ]
    assert other.tables[0].frame.set_index("model").loc["RWKV-4", "ListOps, generated"] == "90.0 ± 3.0"
    assert "other data, sizes or steps" in other.title and "other data" not in whole.title
    assert "Image" not in other.tables[0].frame and "attention" not in set(other.tables[0].frame.model)


def test_a_stand_in_has_no_published_number_and_no_part_in_the_average() -> None:
    records = [trained(task, "s4", "S4D", "S4", score) for task, score in (("listops", 0.3), ("image", 0.5))]
    stand_in = trained("retrieval", "s4", "S4D", "S4", 0.9)
    records.append(replace(stand_in, metrics={**stand_in.metrics, "data_source": "stand-in"}))
    (view,) = lra.views(read(records))
    line = view.tables[0].frame.set_index("model").loc["S4D"]
    assert line["Retrieval, stand-in"] == "90.0 ± 3.0" and "Retrieval, published" not in line
    assert line["average"] == "40.0" and line["Image, published"] == "88.65"


def test_a_rate_that_failed_does_not_hide_one_that_was_measured() -> None:
    (view,) = lra.views(read([trained("image", "s4", "S4D", "S4", 0.4), refused("image", "s4")]))
    assert view.tables[0].frame.model.tolist() == ["always the majority", "root operator", "S4D"]


def test_machines_share_the_scores_but_not_the_times() -> None:
    first, second = (trained("image", "s4", "S4D", "S4", score) for score in (0.3, 0.4))
    (view,) = lra.views(read([first, measured_elsewhere(second, machine="another")]))
    assert view.tables[0].frame.set_index("model").loc["S4D", "Image"] == "35.0 (30.0-40.0)"
    assert view.tables[2].frame[["machine", "seeds", "test"]].to_numpy().tolist() == [
        [PROVENANCE["machine"], 1, "30.0"],
        ["another", 1, "40.0"],
    ]
    _, *times = view.pictures
    assert [(picture.name, picture.panels[0].series[0].y) for picture in times] == [
        ("lra-time", [30]),
        ("lra-time-2", [40]),
    ]
    assert times[1].footer.endswith("another")


def test_both_averages_of_the_published_rows_are_computed_anew() -> None:
    table = lra._published("lra").frame.set_index("model")
    assert table.loc["RWKV", ["printed average", "of six, x as 50", "of five"]].tolist() == ["72.07", "68.20", "71.84"]
    assert table.loc["S4", ["printed average", "of six, x as 50"]].tolist() == ["86.09", "86.09"]
    assert "Path-X" not in paper.lra_scores(lra.PUBLISHED)["RWKV"]


def test_a_mixer_is_compared_with_attention_of_its_own_cell() -> None:
    records = [timed("s4", 1024, 0.1, 0.2), timed("rwkv4", 1024, 0.1, 0.05), timed("rwkv4", 2048, 0.2, 0.4)]
    (view,) = encoders.views(read(records))
    table = view.tables[0].frame.set_index("mixer")
    assert table.index.tolist() == ["RWKV-4", "S4D"]
    assert table.loc["RWKV-4", "1,024"] == "100 (100-100), x0.50 (0.50-0.50), 2"
    assert view.title.endswith(" float32, layers: 1, threads: 1")
    assert "x2.00" in table.loc["RWKV-4", "2,048"] and table.loc["S4D", "2,048"] == "-"
    assert "differ by a factor of up to 4.00 (1,024 tokens, in both directions)" in view.tables[0].note
    time, memory = view.pictures[0].panels
    lines = {series.label: series for series in time.series}
    assert lines["attention"].y == pytest.approx([125, 400]) and lines["RWKV-4"].y == pytest.approx([100, 200])
    assert [list(series.y) for series in memory.series] == [[2, 2], [1, 1], [1]]


def timed(
    mixer: str, tokens: int, seconds: float | list[float], attention: float | list[float], **changes: Any
) -> Record:
    """Of three rounds, in each of which one number took as long."""
    both = {mixer: seconds, "attention": attention}
    samples = {name: one if isinstance(one, list) else [one] * 3 for name, one in both.items()}
    return raced(samples, {mixer: mixer, "attention": "attention"}, tokens, **changes)


def test_a_mixer_of_ours_is_compared_with_attention_and_through_it_with_the_others() -> None:
    records = [timed("rwkv4", tokens, 0.1, attention) for tokens, attention in ((1024, 0.1), (2048, 0.2), (4096, 0.4))]
    records += [timed("lstm", tokens, [0.1, 0.08, 0.1], attention) for tokens, attention in ((2048, 0.4), (4096, 0.8))]
    (view,) = encoders.views(read(records))
    attention, memory, longest, more = of_page([view.comparisons])[0]
    assert attention.startswith("RWKV-4 in both directions, width 64, a training step beside attention: ahead at 2,048")
    assert attention.endswith("no difference shown at 1,024 tokens.")
    assert longest == (
        "RWKV-4 in both directions, width 64, a training step of 4,096 tokens: slower than LSTM: "
        "2.00 (2.00-2.50) x its time."
    )
    at = (f"{tokens} tokens: 2.00 MiB beside 1.00 MiB" for tokens in ("1,024", "2,048", "4,096"))
    assert memory == (
        "RWKV-4 in both directions, width 64, peak memory of a training step beside attention's: "
        f"behind at {', '.join(at)}."
    )
    assert more == (
        "RWKV-4 in both directions, width 64, peak memory of a training step of 4,096 tokens: larger than LSTM: "
        "2.00 MiB beside 1.00 MiB."
    )


def test_ratios_are_taken_within_rounds() -> None:
    (view,) = encoders.views(read([timed("rwkv4", 1024, [0.1, 0.2, 0.4], [0.3, 0.4, 0.4])]))
    (line,) = view.tables[0].frame.to_dict("records")
    assert line["1,024"] == "200 (100-400), x2.00 (1.00-3.00), 2" and line["ahead from"] == "-"


def test_a_mixer_is_ahead_from_where_all_rounds_say_so_on() -> None:
    faster, level = ([0.3, 0.4, 0.4], [0.3, 0.2, 0.4]), 0.2
    records = [timed("rwkv4", tokens, level, faster[tokens == 2048]) for tokens in (1024, 2048, 4096, 8192)]
    records += [timed("s4", tokens, level, faster[tokens == 4096]) for tokens in (2048, 4096)]
    records += [timed("attention", 1024, level, level)]
    tables = [view.tables[0].frame.set_index("mixer") for view in encoders.views(read(records))]
    assert tables[0]["ahead from"].to_dict() == {"RWKV-4": "4,096", "attention": "-", "S4D": "-"}
    records[2] = replace(records[2], status="disturbed", error="a copy took 3 x its best time")
    (view,) = encoders.views(read(records))
    table = view.tables[0].frame.set_index("mixer")
    assert table.loc["RWKV-4", "ahead from"] == "8,192" and table.loc["RWKV-4", "4,096"].endswith("†, -, 2")


def test_each_size_of_the_encoder_has_its_table_and_panels() -> None:
    wide = {"width": 512, "heads": 8, "inner": 2048}
    records = [timed("lstm", 1024, 0.1, 0.2, **wide), timed("lstm", 1024, 0.1, 0.2), timed("rwkv4", 1024, 0.1, 0.2)]
    (view,) = encoders.views(read(records))
    assert [list(table.frame.mixer) for table in view.tables] == [["RWKV-4", "LSTM"], ["LSTM"]]
    assert [table.title.rpartition(": ")[2].partition(",")[0] for table in view.tables] == ["width 64", "width 512"]
    assert len({table.name for table in view.tables}) == 2
    assert [panel.title.rpartition(", ")[2] for panel in view.pictures[0].panels] == ["width 64"] * 2 + [
        "width 512"
    ] * 2


def test_a_task_that_the_report_does_not_know_stands_last() -> None:
    records = [trained(task, "s4", "S4D", "S4", 0.4) for task in ("wordsort", "image", "ants")]
    records[0].metrics["task_title"] = "Words in order"
    (view,) = lra.views(read([*records, refused("bees", "aft")]))
    scores = view.tables[0].frame.set_index("model")
    assert list(scores)[:4] == ["Image", "Image, published", "ants", "Words in order"]
    assert scores.loc["S4D", "Words in order"] == scores.loc["S4D", "ants"] == "40.0 ± 4.9"
    assert scores.loc["aft", "why not"] == "bees: too many parameters"
    assert set(view.tables[2].frame.task) == {"Image", "ants", "Words in order"}
    for picture in view.pictures:
        assert [panel.title for panel in picture.panels] == ["Image", "ants", "Words in order"]


def test_a_mixer_is_called_as_configs_have_it_whatever_its_record_says() -> None:
    records = [trained("image", "s4", "S4", "S4", 0.4), trained("image", "winding", "Winding", "", 0.3)]
    (view,) = lra.views(read(records))
    scores = view.tables[0].frame.set_index("model")
    assert scores.loc["S4D", "Image, published"] == "88.65" and "Winding" in scores.index
    assert "published beside it is S4" in view.tables[0].note
    (view,) = lra.views(read(records[1:]))
    assert "S4D" not in view.tables[0].note


def test_an_accuracy_of_all_or_none_has_a_bound() -> None:
    for accuracies, shown in (
        ((1.0,), "100.0 (≥ 97.0)"),
        ((0.0, 0.0), "0.0 (≤ 3.0)"),
        ((1.0, 0.5), "75.0 (50.0-100.0)"),
    ):
        records = [trained("image", "rwkv4", "RWKV-4", "RWKV", one, seed=seed) for seed, one in enumerate(accuracies)]
        (view,) = lra.views(read(records))
        assert view.tables[0].frame.set_index("model").loc["RWKV-4", "Image"] == shown
        assert ("rule of three" in view.tables[0].note) == ("(≥" in shown or "(≤" in shown)
