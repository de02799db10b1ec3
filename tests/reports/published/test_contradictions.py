"""What contradictions.csv says of the published numbers is what the published tables hold."""

import math

import pandas as pd
import pytest

from reports.published import paper
from reports.views import sources
from rwkv_core import models
from rwkv_core.architectures import ARCHITECTURES

ROWS = paper.table("contradictions").set_index("topic")
GPU = {"169m": 0.17, "430m": 0.43, "1.4b": 1.0, "3b": 3.0, "7b": 7.0, "14b": 14.0}  # size as listed -> as drawn


def said(topic: str) -> str:
    """The cell that says what disagrees."""
    return str(ROWS.loc[topic, "what disagrees"])


def drawn(figure: str, device: str, model: str) -> dict[float, float]:
    """The points of one curve."""
    rows = paper.table("figures_digitized")
    rows = rows[(rows.figure == figure) & (rows.device == device) & (rows.model == model)]
    return dict(zip(rows.x.astype(float).round(2), rows.value.astype(float), strict=True))


def setup(item: str, family: str) -> dict[str, str]:
    """What inference_setup.csv says of the sizes of a family."""
    rows = paper.table("inference_setup")
    rows = rows[(rows["item"] == item) & (rows.model_family == family)]
    return dict(zip(rows["size"], rows.value, strict=True))


def test_every_row_says_where_what_and_what_is_done() -> None:
    assert ROWS.index.is_unique and (ROWS != "").all(axis=None)


def test_the_memory_of_rwkv_is_drawn_as_a_sum_over_tokens() -> None:
    sums, points = setup("gpu_memory_sum_of_1024_tokens_bytes", "RWKV"), drawn("Fig10", "cuda", "rwkv-4-pile")
    assert sums.keys() == GPU.keys()
    shares = [float(total) / 2e9 / points[GPU[size]] for size, total in sums.items()]
    text = said("One token or all in that memory")
    assert f"{100 * min(shares):.0f} to {100 * max(shares):.0f} %" in text
    assert f"{points[14.0]:.2f} GB one token takes {1e3 * points[14.0] / 512:.1f} MB" in text


def test_runs_that_ended_early_are_drawn_on_the_gpu_and_missing_on_the_cpu() -> None:
    text = said("Runs that ended early")
    ended = setup("gpu_tokens", "OPT")["13b"], setup("gpu_tokens", "Pythia")["12b"]
    assert "data hold {} of opt-13b and {} of pythia-12b".format(*ended) in text
    times = drawn("Fig11", "cuda", "opt")[13.0], drawn("Fig11", "cuda", "pythia")[12.0]
    assert "({:.2f} s and {:.2f} s)".format(*times) in text
    for figure in ("Fig10", "Fig11"):
        missing = []
        for model in ("opt", "pythia"):
            sizes = drawn(figure, "cuda", model).keys() - drawn(figure, "cpu", model).keys()
            missing += [f"{model}-{size:g}b" for size in sorted(sizes)]
        assert "{}, {} and {} are missing on the CPU alone".format(*missing) in text


def test_one_time_of_opt_stands_out() -> None:
    opt, pythia = drawn("Fig11", "cuda", "opt"), drawn("Fig11", "cuda", "pythia")
    text = said("OPT 6.7B on the GPU")
    for seconds in (opt[6.7], pythia[6.9], opt[2.7], pythia[2.8]):
        assert f"{seconds:.2f} s" in text
    for ratio in (opt[6.7] / opt[2.7], pythia[6.9] / pythia[2.8], pythia[12.0] / pythia[6.9]):
        assert f"{ratio:.1f} times" in text


def test_both_sizes_of_bloom_have_the_parameters_that_are_named() -> None:
    for name in ("bloom-1b1", "bloom-1b7"):
        assert f"{name} ({models.find(name).parameters / 1e9:.3f}e9)" in said("Bloom 1b")
    notes = paper.table("figures_digitized").note
    assert notes.str.contains("bloom-1b7").sum() == 4 and not notes.str.contains("bloom-1b1").any()


@pytest.mark.parametrize(
    ("topic", "sentence", "factor", "heads"),
    [("FLOPs formula in v2", "2(2VD + 13 D^2 L)", 2, 2), ("FLOPs formula in v1", "6(VD + 13 D^2 L)", 6, 1)],
)
def test_the_flops_of_table_2_follow_neither_sentence(topic: str, sentence: str, factor: int, heads: int) -> None:
    assert sentence in said(topic)
    for row in paper.table("architectures").to_dict("records"):
        layers, width, printed = int(row["layers"]), int(row["d_model"]), float(row["flops_per_token"])
        head, blocks = sources.PAPER_VOCABULARY * width, 13 * width**2 * layers
        assert printed == pytest.approx(2 * (head + blocks), rel=5e-4)
        assert abs(factor * (heads * head + blocks) / printed - 1) > 0.01


def test_table_1_differs_between_the_versions() -> None:
    frame = sources.complexity().tables[0].frame.set_index("model")
    assert len(frame) == 8
    otherwise = frame["otherwise in v1"]
    assert otherwise[otherwise != "-"].to_dict() == {"AFT-local": "no row", "MEGA": "space O(c T d)"}
    assert frame.loc["MEGA", "space"] == "O(c d)"
    assert "O(c T d) in v1 and O(c d) in v2; AFT-local stands in v2 alone" in said("Complexity")


def test_rwkv_outperforms_at_every_size_in_three_of_four_tasks() -> None:
    rows = paper.table("zero_shot")
    rows = rows[rows.source.str.startswith(f"{paper.V1} Table")].astype({"value": float, "params_b": float})
    behind: dict[str, list[str]] = {}
    for (task, *_), scores in rows.groupby(["task", "metric"]):
        for ours in scores[scores.family == "RWKV-4"].itertuples():
            rivals = scores[scores.family.isin(["Pythia", "GPT-Neo"])]
            of_size = rivals[(rivals.params_b / ours.params_b).between(0.8, 1.2)]
            for rival in of_size[of_size.value >= ours.value].itertuples():
                behind.setdefault(str(task), []).append(
                    f"{ours.model} {ours.value:.2f}, {rival.model} {rival.value:.2f}"
                )
    assert not behind.keys() & {"piqa", "openbookqa", "arc_easy"}
    assert behind["copa"] == [
        "RWKV-4 0.43B 65.00, Pythia 0.40B 67.00",
        "RWKV-4 0.43B 65.00, GPT-Neo 0.40B 65.00",
        "RWKV-4 7.4B 85.00, Pythia 6.9B 85.00",
    ]
    text = said("Outperforms in four tasks")
    for part in ("RWKV 0.43B has 65.00, Pythia 0.40B 67.00 and GPT-Neo 0.40B 65.00", "Pythia 6.9B have 85.00"):
        assert part in text


def test_rwkv_is_second_to_s4_in_four_tasks_and_last_in_one() -> None:
    table = pd.DataFrame(paper.lra_scores("arXiv:2305.13048v2 Table 4")).drop(index="Avg").T
    ranks = table.rank(ascending=False).loc["RWKV"].dropna()
    assert len(table) == 11 and table["Path-X"].dropna().index.tolist() == ["S4"]
    second = [str(task) for task, rank in ranks.items() if rank == 2]
    assert f"second in four ({', '.join(second)})" in said("Second only to S4")
    assert ranks.drop(second).to_dict() == {"Pathfinder": 11}
    assert f"last of eleven on Pathfinder ({table.loc['RWKV', 'Pathfinder']:.2f})" in said("Second only to S4")


def test_the_loss_rises_from_512_to_1024_tokens() -> None:
    rows = paper.table("context_extension")
    losses = rows[rows["item"] == "pile_test_loss"].astype({"context_length": int, "value": float})
    by_length = losses.pivot_table("value", "context_length", "model").diff()
    rising = by_length[(by_length > 0).any(axis=1)]
    assert rising.index.tolist() == [1024]
    rise = rising.loc[1024]
    phrase = f"{rise['RWKV-4 7B 8k']:.3f} (7B 8k) and {rise['RWKV-4 14B 8k']:.3f} (14B 8k)"
    assert phrase in said("Loss against context")


def printed(model: str, source: str) -> dict[tuple[str, str], float]:
    """What zero_shot.csv has of a model of one source: task and metric -> value."""
    rows = paper.table("zero_shot")
    rows = rows[(rows.model == model) & rows.source.str.startswith(source)]
    return dict(zip(zip(rows.task, rows.metric, strict=True), rows.value.astype(float), strict=True))


def test_the_flops_of_eagle_and_finch_count_the_embedding_and_the_vectors() -> None:
    text = said("FLOPs of RWKV-5 and RWKV-6")
    whole, without = [], []
    for name in ("rwkv5-1b5", "rwkv6-1b6"):
        spec = models.find(name)
        flops = ARCHITECTURES[spec.architecture["model_type"]].flops
        assert flops
        heads = spec.width / spec.architecture["head_size"]
        whole.append(2 * spec.parameters + 6 * spec.width**2 / heads * spec.layers)
        without.append(flops(spec.architecture))
    assert f"{whole[0]:.2e} (1.5B) and {whole[1]:.2e} (1.6B)".replace("e+09", "e9") in text
    assert f"they are {without[0]:.2e} and {without[1]:.2e}".replace("e+09", "e9") in text
    assert "prints 16D" in text and f"gives {3 * 2 * 4}D" in text  # of the 4D numbers outside the layers


def test_one_average_of_table_4_does_not_fit_its_tasks() -> None:
    source, text = "Eagle/Finch paper arXiv:2404.05892 Table 4", said("Mistral in Eagle and Finch's table")
    rows = paper.table("zero_shot")
    found = {model: printed(model, source) for model in rows[rows.source.str.startswith(source)].model.unique()}
    off = {}
    for model, scores in found.items():
        if average := scores.pop(("average9", "acc"), None):
            off[model] = sum(scores.values()) / 9 - average
            assert len(scores) == 9
    mistral = off.pop("Mistral-7B-v0.1")
    assert max(map(abs, off.values())) <= 0.05 and len(off) >= 10
    scores = found["Mistral-7B-v0.1"]
    mean = sum(scores.values()) / 9
    assert f"average to {mean:.1f}" in text and f"{mean - mistral:.1f} over nine" in text
    (challenge,) = [value for (task, _), value in scores.items() if task == "arc_challenge"]
    assert f"{challenge:.1f} on ARC-c" in text and f"with {challenge - 10:.1f}" in text
    assert f"{mean - 10 / 9:.1f}" == f"{mean - mistral:.1f}"


def test_lambada_of_rwkv7_depends_on_the_first_token() -> None:
    text, lambada = said("LAMBADA of RWKV-7 2.9B"), ("lambada_openai", "acc")
    json = "jannalulu/lm-evaluation-harness-goose"
    assert f"{printed('RWKV7-World3-2.9B', 'Goose')[lambada]:.1f} in the table" in text
    assert f"{printed('fla-hub/rwkv7-2.9B-world', json)[lambada]:.2f} in the co-author's file" in text
    without, begun = (printed(f"fla-hub/rwkv7-1.5B-world{end}", json)[lambada] for end in ("", " (initial token 0)"))
    assert f"{begun:.2f} with the initial token 0 and {without:.2f} without" in text
    inferred = printed("RWKV-x070-Pile-1.47B-20241210-ctx4096 (inferred)", json)
    assert f"LAMBADA {inferred[lambada]:.2f}" in said("RWKV-7 Pile 1.47B")


def test_no_rule_of_the_trainer_gives_the_ranks_of_the_files() -> None:
    def rank(value: float) -> int:
        return max(32, round(value / 32) * 32)

    width = 1024
    first = rank(1.3 * width**0.5), rank(0.6 * width**0.8)
    second = rank(1.7 * width**0.5), rank(5 * width**0.5)
    ranks = [
        tuple(models.find(name).architecture[f"{part}_low_rank_dim"] for part in ("v", "gate"))
        for name in ("rwkv7-0b4", "rwkv7-421m-pile")
    ]
    world, pile = ranks
    assert not {first, second} & {*ranks}
    text = said("Low ranks of RWKV-7")
    assert "value {} and gate {} by the first rule, {} and {} by the second".format(*first, *second) in text
    assert "{} and {} (World), {} and {} (Pile)".format(*world, *pile) in text


def test_the_lowest_decay_of_rwkv7() -> None:
    text = said("Lowest decay of RWKV-7")
    assert f"{math.exp(-0.5):.3f} in the note" in text and f"below {math.exp(-math.exp(-0.5)):.3f}" in text


def test_both_readings_of_retnets_table_are_there() -> None:
    rows = paper.table("zero_shot")
    row = rows[(rows.model == "Linear Transformer 200M") & (rows.task == "in_domain")].iloc[0]
    assert f"{row.value} in one note and {row.note.split()[-2]} in the other" in said("RetNet at 200M")
