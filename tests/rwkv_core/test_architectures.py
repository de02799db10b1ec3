"""The arithmetic of RWKV-5 to -7: parameters as published, states and FLOPs as the papers count them."""

import math

import pytest

from rwkv_core import models
from rwkv_core.architectures import ARCHITECTURES
from rwkv_core.rwkv.model import RWKV

PUBLISHED = {  # by whom a number of that many digits was printed, or a file's size that gives it
    "rwkv5-0b4": 4.62e8,  # Eagle/Finch, arXiv:2404.05892, Table 11
    "rwkv5-1b5": 1.58e9,
    "rwkv5-3b": 3.06e9,
    "rwkv5-7b": 7.52e9,
    "rwkv6-1b6": 1.60e9,
    "rwkv6-3b": 3.10e9,
    "rwkv6-7b": 7.63e9,  # AIComputing101/llm-leaderboard, which cuts the digits off
    "rwkv7-0b1": 191_034_624,  # model_num_parameters of jannalulu/lm-evaluation-harness-goose@1039f7b0d3
    "rwkv7-1b5": 1_527_404_544,
    "rwkv7-2b9": 2_947_735_040,
    "rwkv7-168m-pile": 335e6 / 2,  # bytes of the file in 16 bits
    "rwkv7-421m-pile": 842e6 / 2,
}
EXACT = {  # counted over the tensors of each, outside this project
    "rwkv5-0b4": 461_721_600,
    "rwkv5-1b5": 1_577_754_624,
    "rwkv5-3b": 3_062_999_040,
    "rwkv5-7b": 7_518_044_160,
    "rwkv6-1b6": 1_599_873_024,
    "rwkv6-3b": 3_099_863_040,
    "rwkv6-7b": 7_635_746_816,
    "rwkv6-14b": 14_069_088_256,
    "rwkv7-0b1": 191_034_624,
    "rwkv7-0b4": 450_767_872,
    "rwkv7-1b5": 1_527_404_544,
    "rwkv7-2b9": 2_947_735_040,
    "rwkv7-168m-pile": 167_638_272,
    "rwkv7-421m-pile": 421_080_064,
    "rwkv7-1b47-pile": 1_465_014_272,
}
LATER = [
    name for name, spec in models.catalogue().items() if spec.architecture["model_type"] in ("rwkv5", "rwkv6", "rwkv7")
]
RECURRENCE = {"rwkv5": 6, "rwkv6": 6, "rwkv7": 9}  # operations for each number of the state


def counted(name: str) -> int:
    spec = models.find(name)
    formula = ARCHITECTURES[spec.architecture["model_type"]].parameters
    assert formula
    return formula(spec.architecture)


@pytest.mark.parametrize("name", LATER)
def test_parameters_are_the_formulas(name: str) -> None:
    assert counted(name) == models.find(name).parameters
    assert counted(name) == EXACT.get(name, counted(name))
    assert counted(name) == pytest.approx(PUBLISHED.get(name, counted(name)), rel=2e-3)


def test_every_released_model_has_its_count() -> None:
    assert {name for name in LATER if not name.startswith(("pocket", "recall"))} == set(EXACT) >= set(PUBLISHED)


@pytest.mark.parametrize("version", ["rwkv4", "rwkv5", "rwkv6", "rwkv7"])
def test_small_models_are_of_one_size(version: str) -> None:
    for kind in ("pocket", "recall"):
        size = models.find(f"{kind}-{version}").parameters
        assert size == pytest.approx(models.find(f"{kind}-rwkv4").parameters, rel=0.01)


@pytest.mark.parametrize("variant", ["5.0", "5.1", "5.2"])
def test_parameters_of_each_variant_of_rwkv5(variant: str) -> None:
    """Of one layer, tensor by tensor, as BlinkDL's files have them."""
    v, d, h, n, f = 100, 128, 2, 64, 416
    gate = variant != "5.0"
    decay = [(h, n), (h, n)] if variant == "5.2" else [(h,), (h,)]
    attention = [(d,)] * (4 if gate else 3) + decay + [(d, d)] * (5 if gate else 4) + [(d,), (d,)]
    feed_forward = [(d,), (d,), (f, d), (d, d), (d, f)]
    tensors = [(v, d), (v, d), *[(d,)] * 8, *attention, *feed_forward]
    shape = {"vocab_size": v, "hidden_size": d, "num_hidden_layers": 1, "head_size": n, "intermediate_size": f}
    formula = ARCHITECTURES["rwkv5"].parameters
    assert formula and formula({**shape, "variant": variant}) == sum(map(math.prod, tensors))


@pytest.mark.parametrize(
    ("name", "forward", "training"), [("rwkv5-1b5", 3.17e9, 9.52e9), ("rwkv6-1b6", 3.22e9, 9.66e9)]
)
def test_flops_are_table_11s_less_the_embedding_and_the_vectors(name: str, forward: float, training: float) -> None:
    shape = models.find(name).architecture
    width, layers = shape["hidden_size"], shape["num_hidden_layers"]
    vectors = (4 + {"rwkv5": 14, "rwkv6": 16}[shape["model_type"]] * layers) * width
    formula = ARCHITECTURES[shape["model_type"]].flops
    assert formula
    as_there = formula(shape) + 2 * (shape["vocab_size"] * width + vectors)
    assert as_there == 2 * counted(name) + 384 * width * layers
    assert f"{as_there:.2e}" == f"{forward:.2e}" and f"{3 * as_there:.2e}" == f"{training:.2e}"


@pytest.mark.parametrize("name", ["pocket-rwkv5", "rwkv5-0b4", "pocket-rwkv6", "rwkv6-7b", "pocket-rwkv7", "rwkv7-0b1"])
def test_flops_are_twice_the_matrices_and_the_recurrence(name: str) -> None:
    spec = models.find(name)
    vectors = ("time_decay", "time_faaaa", "r_k")  # of two dimensions, since they have one number for each of a head
    matrices = sum(
        p.numel()
        for key, p in RWKV.of(spec).named_parameters()
        if p.squeeze().dim() > 1 and key != "emb.weight" and not key.endswith(vectors)
    )
    state = spec.architecture["head_size"] * spec.width * spec.layers
    formula = ARCHITECTURES[spec.architecture["model_type"]].flops
    assert formula
    assert formula(spec.architecture) == 2 * matrices + RECURRENCE[spec.architecture["model_type"]] * state


def test_flops_of_rwkv7_by_hand() -> None:
    formula = ARCHITECTURES["rwkv7"].flops
    assert formula
    shape = {"vocab_size": 10, "hidden_size": 4, "num_hidden_layers": 2, "head_size": 2, "intermediate_size": 16}
    shape |= {"decay_low_rank_dim": 1, "a_low_rank_dim": 2, "v_low_rank_dim": 3, "gate_low_rank_dim": 5}
    layer = 4 * 16 + 2 * 64 + 2 * 4 * (1 + 2 + 5)
    assert formula(shape) == 2 * (40 + 2 * layer + 2 * 4 * 3) + 9 * 2 * 4 * 2


def test_states_are_those_of_the_paper_and_of_a_log() -> None:
    for name in LATER:
        spec = models.find(name)
        numbers = (2 + spec.architecture["head_size"]) * spec.width * spec.layers
        assert spec.state_bytes(1) == spec.state_bytes(1000) == 4 * numbers and spec.recurrent
        assert spec.state_bytes(1, itemsize=2, batch=3) == 3 * (4 * numbers - 4 * spec.width * spec.layers)
    assert round(models.find("rwkv6-14b").state_bytes(1) / 2**20) == 63  # MiB, in a llama.cpp log of that shape
