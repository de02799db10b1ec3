"""Each family's own kind of tokenizer beside lm-eval's HFLM, which reads the same folder: tasks and single texts."""

import contextlib
import io
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from bench.speed import hflm
from evals.zeroshot import tasks
from evals.zeroshot.lm_eval import AskedModel
from rwkv_core.errors import Unsupported
from rwkv_core.load import load
from tests import families
from tests.evals import world

BOUND = 1e-4
BARREL = " the barrel was found in the"
PAIRS = [("", BARREL), ("", BARREL[1:]), ("Ann put", BARREL), ("Ann put \n", BARREL), ("Ann. " * 400, BARREL)]
WHITE = [("\n", BARREL), ("  ", BARREL[1:])]  # HFLM scores these only where the tokenizer puts a BOS
PROMPTS = ["Ann put", "Ann put \n", "\n", "Ann. " * 400, "The letter of Ann said that the"]

Sides = tuple[AskedModel, HFLM]


@pytest.fixture(scope="module", params=families.SHAPES)
def sides(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sides:
    """Ours and HFLM over one folder."""
    spec = families.folder(request.param, tmp_path_factory.mktemp("folders"))
    exact = {"softmax_dtype": torch.float64, "max_length": spec.context_length}
    reference = HFLM(spec.weights, dtype="float32", device="cpu", batch_size=1, **exact)
    return hflm.as_lm(load(spec), "cpu", "own"), reference


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(world.write(tmp_path_factory.mktemp("tasks")))


@pytest.mark.parametrize("name", ["hellaswag", "record", "lambada_openai"])
def test_answers_are_those_of_lm_eval(sides: Sides, name: str, data: str) -> None:
    mine, reference = sides
    task = tasks.load(name, data, "v0.4", 3)
    difference, differing = hflm.differences(task, hflm.ours(task, mine), hflm.theirs(task, reference))
    assert difference is not None and difference <= BOUND and differing == []


def test_single_texts_are_scored_and_gone_on_from_as_by_lm_eval(sides: Sides) -> None:
    """Contexts that are empty, end with white space, are nothing else, or are longer than the window."""
    mine, reference = sides
    options = {"until": ["\n\n"], "max_gen_toks": 24}
    pairs = PAIRS + (WHITE if mine.asker.special_tokens else [])
    scored = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    written = [Instance("generate_until", {}, (text, options), i) for i, text in enumerate(PROMPTS)]
    answers: list[Any] = []
    with contextlib.redirect_stderr(io.StringIO()):  # progress bars
        for lm in (mine, reference):
            answers.append((lm.loglikelihood(scored), lm.generate_until(written)))
    (scores, texts), (expected_scores, expected_texts) = answers
    for (value, greedy), (expected, expected_greedy) in zip(scores, expected_scores, strict=True):
        assert value == pytest.approx(expected, abs=BOUND) and greedy == expected_greedy
    assert texts == expected_texts


def test_the_world_tokenizer_has_no_peer() -> None:
    mine = hflm.as_lm(load("pocket-rwkv4"), "cpu", "own")
    with pytest.raises(Unsupported, match="no World tokenizer"):
        hflm.peer(mine, None, "rwkv_vocab_v20230424.txt", 1)
