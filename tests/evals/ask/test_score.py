"""Answers: the same as one plain forward a request, whatever is shared and however it is batched."""

import random
from typing import Any

import numpy as np
import pytest
import torch

from evals.ask import head, score
from evals.ask.score import Limits, Scorer
from evals.ask.sharing import Request, leaves
from rwkv_core.load import load
from rwkv_core.spec import LanguageModel, ModelSpec
from tests.rwkv_core.runtimes.test_hf import SMALL, small

RWKV = {"model_type": "rwkv", "vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 2}
FAMILIES = ["rwkv4", *SMALL]
TIGHT = Limits(tokens=24, call_tokens=3, row_tokens=0.5, state_bytes=20_000)
WIDE = Limits(tokens=4096, call_tokens=30, row_tokens=0.5, state_bytes=1 << 30)


def model_of(family: str) -> LanguageModel:
    if family != "rwkv4":
        return small(family)
    model = load(ModelSpec("rwkv4", "rwkv4", RWKV, weights="random:1"))
    with torch.no_grad():
        for _, p in model.named_parameters():
            if p.dim() == 2:
                p.mul_(8)
    return model


def some_requests(seed: int = 0) -> list[Request]:
    """Documents of a context and several continuations, some with one token, some alone, some repeated."""
    rng = random.Random(seed)

    def tokens(n: int) -> list[int]:
        return [rng.randrange(128) for _ in range(n)]

    found = []
    for _ in range(9):
        context = tokens(rng.choice([3, 8, 20, 30]))
        for _ in range(rng.choice([1, 2, 4, 5])):
            continuation = tokens(rng.choice([1, 1, 3, 9]))
            found.append(Request(np.array([*context, *continuation], dtype=np.int32), len(continuation)))
    return [*found, found[0], found[3]]


@torch.inference_mode()
def plain(model: Any, requests: list[Request]) -> list[tuple[float, bool]]:
    """One forward of the whole sequence a request, all logits, all in float64 after the model."""
    found = []
    for request in requests:
        fed = torch.tensor(request.tokens[None, :-1], dtype=torch.long)
        logits = model.logits(model.hidden(fed)[0])[0].double().log_softmax(-1)[-request.scored :]
        targets = torch.tensor(request.tokens[-request.scored :], dtype=torch.long)
        picked = logits.gather(1, targets[:, None]).sum()
        found.append((float(picked), bool((logits.argmax(-1) == targets).all())))
    return found


def same(answers: list[Any], expected: list[tuple[float, bool]]) -> None:
    assert [answer[1] for answer in answers] == [answer[1] for answer in expected]
    np.testing.assert_allclose([a[0] for a in answers], [a[0] for a in expected], atol=1e-4, rtol=0)


def by_padding(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a model has no pass without padding, and on a GPU."""
    monkeypatch.setattr(type(model), "read", None)


@pytest.mark.parametrize("limits", [TIGHT, WIDE], ids=["tight", "wide"])
@pytest.mark.parametrize("share", [True, False], ids=["shared", "apart"])
@pytest.mark.parametrize("family", [*FAMILIES, "rwkv4 padded", "pythia padded"])
def test_answers_are_those_of_one_forward_each(
    family: str, share: bool, limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, _, padded = family.partition(" ")
    model, requests = model_of(family), some_requests()
    if padded:
        by_padding(model, monkeypatch)
    expected = plain(model, requests)
    found, counts = Scorer(model, "cpu", share=share, limits=limits).score(requests)
    same(found, expected)
    shared = share and family != "mamba"
    apart = sum(len(leaf.fed) for leaf in leaves(requests))
    assert counts["tokens_read"] < apart if shared else counts["tokens_read"] == apart
    assert counts["tokens_unshared"] > apart  # one-token continuations have nothing of their own to read


@pytest.mark.parametrize("family", ["rwkv4", "pythia"])
def test_the_likeliest_continuation_is_greedy(family: str) -> None:
    model, requests = model_of(family), some_requests()
    with torch.inference_mode():
        likeliest = []
        for request in requests:
            context = request.tokens[: -request.scored].tolist()
            for _ in range(3):
                logits = model.logits(model.hidden(torch.tensor([context]))[0])[0, -1]
                context.append(int(logits.argmax()))
            likeliest.append(Request(np.array(context, dtype=np.int32), 3))
    found, _ = Scorer(model, "cpu", limits=TIGHT).score([*likeliest, *requests])
    same(found, plain(model, [*likeliest, *requests]))
    assert all(answer.greedy for answer in found[: len(likeliest)])


def test_the_order_of_documents_does_not_matter() -> None:
    model, requests = model_of("rwkv4"), some_requests()
    order = list(range(len(requests)))
    random.Random(3).shuffle(order)
    found, _ = Scorer(model, "cpu").score(requests)
    shuffled, _ = Scorer(model, "cpu", limits=TIGHT).score([requests[i] for i in order])
    same(shuffled, [found[i] for i in order])


def test_what_needs_no_padding_is_read_in_few_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, requests = model_of("rwkv4"), some_requests()
    sizes = []
    read = model.read
    assert read
    monkeypatch.setattr(
        type(model), "read", property(lambda _: lambda tokens, trees: sizes.append(len(tokens)) or read(tokens, trees))
    )
    found, counts = Scorer(model, "cpu", limits=WIDE).score(requests)
    same(found, plain(model, requests))
    assert sizes == [counts["tokens_read"]]
    sizes.clear()
    same(Scorer(model, "cpu", limits=TIGHT).score(requests)[0], found)
    longest = max(len(request.fed) for request in requests)  # read alone where it exceeds a batch
    assert len(sizes) > 3 and max(sizes) <= max(TIGHT.tokens, longest)


@pytest.mark.parametrize("prefix", [1, 20], ids=["read again", "kept"])
def test_a_group_that_exceeds_a_batch(prefix: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short prefix is read in every batch, a long one once, and its state is kept."""
    model, rng = model_of("rwkv4"), np.random.default_rng(0)
    start = rng.integers(128, size=prefix)
    requests = [Request(np.array([*start, n, *rng.integers(128, size=9)], dtype=np.int32), 4) for n in range(30)]
    calls, hidden = [], model.hidden
    monkeypatch.setattr(model, "hidden", lambda *a, **k: calls.append(a) or hidden(*a, **k))
    limits = TIGHT._replace(tokens=40)
    found, counts = Scorer(model, "cpu", limits=limits).score(requests)
    assert bool(calls) == (prefix == 20)
    assert counts["tokens_read"] == 30 * 9 + prefix * (1 if calls else 8)
    same(found, plain(model, requests))


@pytest.mark.parametrize("rows,block", [(1, 1), (5, 64), (7, 5 * 33), (1 << 20, 1 << 20)])
@pytest.mark.parametrize("family", ["rwkv4", "pythia"])
def test_the_head_is_computed_in_parts(family: str, rows: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "ROWS", rows)
    monkeypatch.setattr(score, "ROWS", rows)
    monkeypatch.setattr(head, "BLOCK", block)
    model, requests = model_of(family), some_requests()
    found, counts = Scorer(model, "cpu", limits=TIGHT).score(requests)
    same(found, plain(model, requests))
    distinct = {
        request.fed[:end].tobytes()
        for request in requests
        for end in range(len(request.fed) - request.scored + 1, len(request.fed) + 1)
    }
    assert counts["positions_scored"] == len(distinct)


@pytest.mark.parametrize("family", ["rwkv4", "rwkv4 padded", "bloom"])
def test_a_batch_that_does_not_fit_is_halved(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family, _, padded = family.partition(" ")
    model, requests = model_of(family), some_requests()
    if padded:
        by_padding(model, monkeypatch)
    expected, sizes = plain(model, requests), []
    hidden, read, logits = model.hidden, model.read, model.logits
    allowed = 2

    def small(count: int) -> None:
        sizes.append(count)
        if count > allowed:
            raise torch.OutOfMemoryError("out of memory")

    def narrow(tokens: Any, *args: Any, **options: Any) -> Any:
        small(len(tokens))
        return hidden(tokens, *args, **options)

    def few(tokens: Any, trees: Any) -> Any:
        small(len(trees))
        assert read
        return read(tokens, trees)

    def tight(vectors: Any, words: Any) -> Any:
        small(allowed + (len(vectors) > 10))
        return logits(vectors, words)

    monkeypatch.setattr(model, "hidden", narrow)
    monkeypatch.setattr(model, "logits", tight)
    if read:
        monkeypatch.setattr(type(model), "read", property(lambda _: few))
    found, _ = Scorer(model, "cpu", limits=WIDE).score(requests)
    same(found, expected)
    assert max(sizes) > 4

    allowed = 0
    with pytest.raises(torch.OutOfMemoryError):
        Scorer(model, "cpu").score(requests)


def test_learned_positions_are_not_used_up_by_padding() -> None:
    model = model_of("opt")  # 64 positions
    rng = np.random.default_rng(0)
    long, short = (rng.integers(128, size=n).astype(np.int32) for n in (60, 20))
    requests = [
        Request(np.concatenate([start, rng.integers(128, size=n).astype(np.int32)]), n)
        for start, ns in ((long, (2, 4)), (short, (3, 40)))
        for n in ns
    ]
    found, _ = Scorer(model, "cpu", limits=WIDE).score(requests)
    same(found, plain(model, requests))


def test_the_log_softmax_is_float32_in_a_shorter_type() -> None:
    model = load(ModelSpec("rwkv4", "rwkv4", RWKV, weights="random:1"), dtype="bfloat16")
    requests = some_requests()
    found, _ = Scorer(model, "cpu", limits=WIDE).score(requests)
    assert len({answer.loglikelihood for answer in found}) >= len(requests) - 3  # bfloat16 sums would tie
    np.testing.assert_allclose([a[0] for a in found], [a[0] for a in plain(model, requests)], rtol=0.02)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("family", ["rwkv4", "pythia", "bloom"])
def test_on_a_gpu(family: str) -> None:
    model, requests = model_of(family), some_requests()
    expected = plain(model, requests)
    found, _ = Scorer(model.to("cuda"), "cuda").score(requests)  # type: ignore[attr-defined]
    same(found, expected)
