"""How far fewer bits are from float32: nothing from itself, and what the definitions say of a model that is another."""

import math

import pytest
import torch
import torch.nn.functional as F

from evals.language import corpus, precision
from rwkv_core.load import load
from rwkv_core.spec import LanguageModel

SMALL = {"tokens": 300, "documents": 2}  # more than a chunk


@pytest.fixture(scope="module", params=["pocket-rwkv4", "pocket-pythia"])
def exact(request: pytest.FixtureRequest) -> LanguageModel:
    return load(request.param)


def test_float32_is_itself(exact: LanguageModel) -> None:
    metrics, samples = precision.run(exact, device="cpu", **SMALL)
    assert metrics["agreement"] == 1 and metrics["kl"] == pytest.approx(0, abs=1e-12)
    assert metrics["loss"] == metrics["loss_float32"] and samples["kl"] and len(samples["loss"]) == 2


def test_what_is_diverged_from_is_the_exact_one() -> None:
    few, exact = (torch.tensor([[p, 1 - p]]).log() for p in (0.5, 0.9))
    divergence, same = precision.apart(few, exact)
    assert float(divergence) == pytest.approx(0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5), rel=1e-6)
    assert bool(same) is True  # of two that are equally likely the first counts, as torch has it
    assert not bool(precision.apart(few.flip(1), exact.flip(1))[1])


@torch.inference_mode()
def test_bfloat16_is_as_far_as_the_definitions_say(exact: LanguageModel) -> None:
    model = load(exact.spec, dtype="bfloat16")
    metrics, samples = precision.run(model, device="cpu", **SMALL)
    encode, _ = corpus.codec(exact, "own")
    rows = torch.tensor(corpus.segments("pocket", encode, 301, 2), dtype=torch.long)
    for i, row in enumerate(rows):
        few, full = (one.logits(one.hidden(row[None, :-1])[0])[0].double() for one in (model, exact))
        p, q = full.softmax(-1), few.softmax(-1)
        kl = (p * (p / q).log()).sum(-1).mean()
        assert samples["kl"][i] == pytest.approx(float(kl), rel=0.05) and kl > 0  # in chunks bfloat16 rounds otherwise
        assert samples["agreement"][i] == pytest.approx(float((p.argmax(-1) == q.argmax(-1)).double().mean()), abs=0.01)
        assert samples["loss_float32"][i] == pytest.approx(float(F.cross_entropy(full, row[1:])), rel=1e-5)
        assert samples["loss"][i] == pytest.approx(float(F.cross_entropy(few, row[1:])), rel=1e-3)
    assert metrics["kl"] == pytest.approx(sum(samples["kl"]) / 2)
