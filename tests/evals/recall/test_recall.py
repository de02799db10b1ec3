"""Recall: the sequences ask for what they hold, whoever looks it up is always right, and training is the same twice."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import matrix
from evals.recall import run as recall
from evals.recall.sequences import ASK, MARKS, NOW, TASKS
from rwkv_core.errors import BadInput
from rwkv_core.load import load
from rwkv_core.models import find

VOCABULARY = 130
ROOT = Path(__file__).resolve().parents[3]


def draw(task: str, size: int, count: int = 200, seed: int = 0, alphabet: int = 0) -> Any:
    return TASKS[task].make(np.random.default_rng(seed), count, size, 6 * size, VOCABULARY, alphabet)


def oracle(task: str, tokens: list[int], place: int, size: int) -> int:
    """The answer at a place by looking it up in what stands before it, in plain Python."""
    if task in ("mqar", "query_last"):
        pairs = dict(itertools.batched(tokens[: 2 * size], 2)) if hasattr(itertools, "batched") else None
        pairs = pairs or {tokens[i]: tokens[i + 1] for i in range(0, 2 * size, 2)}
        return pairs[tokens[place] if task == "mqar" else tokens[place - 1]]
    if task == "query_first":
        return {tokens[i]: tokens[i + 1] for i in range(2, 2 + 2 * size, 2)}[tokens[1]]
    if task == "copying":
        return tokens[place - size]
    if task == "passkey":
        return tokens[tokens.index(ASK) + 1]
    if task == "parity":
        return MARKS + sum(token - MARKS for token in tokens[: place + 1]) % 2
    every = list(itertools.permutations(range(int(task[-1]))))
    product = tuple(range(int(task[-1])))
    for token in tokens[: place + 1]:
        product = tuple(product[i] for i in every[token - MARKS])
    return MARKS + every.index(product)


@pytest.mark.parametrize("size", [1, 4, 16])
@pytest.mark.parametrize("task", TASKS)
def test_an_oracle_is_always_right(task: str, size: int) -> None:
    sequences = draw(task, size)
    queries = {"mqar": size, "copying": size}.get(task, size if task[:3] in ("par", "per") else 1)
    assert ((sequences.targets >= 0).sum(1) == queries).all() and sequences.tokens.shape == sequences.targets.shape
    for tokens, targets in zip(sequences.tokens.tolist(), sequences.targets.tolist(), strict=True):
        for place, target in enumerate(targets):
            if target >= 0:
                assert oracle(task, tokens, place, size) == target
    assert sequences.tokens.min() >= 0 and max(sequences.tokens.max(), sequences.targets.max()) < VOCABULARY


@pytest.mark.parametrize("task", TASKS)
def test_sequences_are_seeded_and_their_floors_are_what_guessing_scores(task: str) -> None:
    size = 8
    first, again, other = draw(task, size), draw(task, size), draw(task, size, seed=1)
    assert (first.tokens == again.tokens).all() and (first.targets == again.targets).all()
    assert not (first.tokens == other.tokens).all()
    many = draw(task, size, count=4000)
    asked = many.targets >= 0
    rng = np.random.default_rng(1)
    guess = rng.choice(np.unique(many.targets[asked]), size=asked.sum())
    assert (guess == many.targets[asked]).mean() == pytest.approx(many.chance, abs=0.02)
    assert many.chance <= many.majority <= many.chance + 0.05
    if task in ("query_last", "query_first", "copying"):  # any of the values that were told
        values = np.where(many.tokens >= (VOCABULARY + MARKS) // 2, many.tokens, -1)
        start = 2 if task == "query_first" else 0
        told = values[:, start : start + (size if task == "copying" else 2 * size)]
        told = told[told >= 0].reshape(len(told), size)
        picked = told[np.arange(len(told)), rng.integers(size, size=len(told))]
        if task == "copying":  # the same may be told twice: the most frequent
            picked = np.array([np.bincount(row).argmax() for row in told])
        share = np.concatenate([row[row >= 0] == one for row, one in zip(many.targets, picked, strict=True)]).mean()
        assert share == pytest.approx(many.rule, abs=0.03)


@pytest.mark.parametrize(("size", "length"), [(4, 16), (4, 64), (8, 128)])
def test_mqar_asks_where_zoology_does_and_its_rule_is_the_best_for_a_rank(size: int, length: int) -> None:
    found = TASKS["mqar"].make(np.random.default_rng(0), 4000, size, length, VOCABULARY, 0)
    places = (length - 2 * size) // 2
    chances = 0.01 * np.arange(1, places + 1) ** -0.99
    values = found.tokens[:, 1 : 2 * size : 2]
    asked = np.stack([row[row >= 0] for row in found.targets])  # [N, size], in the order of their queries
    pair = (asked[:, :, None] == values[:, None]).argmax(2)  # which pair is asked for at each rank
    where = np.nonzero(found.targets >= 0)[1].reshape(-1, size)
    first = (where[pair == 0] - 2 * size) // 2  # the first pair draws its place from the plain law
    assert np.bincount(first, minlength=places) / 4000 == pytest.approx(chances / chances.sum(), abs=0.03)
    learned = [np.bincount(pair[:2000, rank]).argmax() for rank in range(size)]
    assert (pair[2000:] == learned).mean() == pytest.approx(found.rule, abs=0.02) and found.rule > 1.1 / size


@pytest.mark.parametrize("name", ["recall", "recall-cpu"])
def test_every_cell_of_the_matrices_can_be_made(name: str) -> None:
    for cell in matrix.read(ROOT / "configs" / f"{name}.yaml"):
        asked = {key: cell.params[key] for key in ("task", "size", "alphabet")}
        recall.check(cell.model, length=cell.params["length"] or 4 * asked["size"], **asked)
        assert cell.params["token_shift"] is False or cell.model.architecture["model_type"] == "gpt_neox"


@pytest.mark.parametrize("task", ["mqar", "query_last", "query_first"])
def test_an_alphabet_is_all_that_is_paired(task: str) -> None:
    found = draw(task, 8, alphabet=12)
    middle = (VOCABULARY + MARKS) // 2
    assert set(found.targets[found.targets >= 0]) == set(range(middle, middle + 12))
    start = 2 if task == "query_first" else 0
    assert set(found.tokens[:, start : start + 16 : 2].flatten()) == set(range(MARKS, MARKS + 12))


def test_the_two_orders_are_the_same_but_for_the_place_of_the_question() -> None:
    first, last = draw("query_first", 4), draw("query_last", 4)
    assert (first.tokens[:, 2:-1] == last.tokens[:, :8]).all()
    assert (first.tokens[:, :2] == last.tokens[:, 8:10]).all() and (first.tokens[:, 0] == ASK).all()
    assert (first.tokens[:, -1] == NOW).all() and (last.tokens[:, -1] == NOW).all()
    assert (first.targets[:, -1] == last.targets[:, -1]).all()


def trained(tmp_path: Path, name: str = "recall-rwkv4", **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    own = load(find(name, weights="fresh:0"))
    asked: dict[str, Any] = {"task": "query_first", "size": 2, "learning_rate": 0.02, "steps": 30, "batch": 64}
    return recall.run(own, device="cpu", work=str(tmp_path / "work"), **{**asked, "test": 256, **more})


def test_training_is_the_same_twice_and_says_what_it_found(tmp_path: Path) -> None:
    (metrics, samples), (_, again) = (trained(tmp_path / name) for name in "ab")
    assert samples["loss"] == pytest.approx(again["loss"], abs=1e-6) and len(samples["loss"]) == 30
    assert metrics["accuracy"] == pytest.approx(np.mean(samples["right"]), abs=1e-5)
    assert metrics["state_bytes"] == 2 * (2 * 32 * 4 + 3 * 32 * 4) and metrics["parameters"] == 43840


def test_it_learns_what_can_be_learned_and_nothing_from_shuffled_answers(tmp_path: Path) -> None:
    learned, _ = trained(tmp_path / "right", steps=400)
    control, _ = trained(tmp_path / "shuffled", steps=400, shuffled=True)
    assert learned["accuracy"] > 0.9
    assert control["accuracy"] < 0.05  # of 128 values


def test_the_control_has_a_token_shift_of_its_own_and_sees_no_future(tmp_path: Path) -> None:
    import torch

    own = load(find("recall-attention", weights="fresh:0"))
    before = sum(p.numel() for _, p in own.named_parameters())
    recall.add_token_shift(own)
    shares = [p for name, p in own.named_parameters() if name.endswith("share")]
    assert len(shares) == 4 and sum(p.numel() for _, p in own.named_parameters()) == before + 128
    tokens = torch.randint(2, 256, (2, 12), generator=torch.Generator().manual_seed(0))
    hidden, _ = own.hidden(tokens, keep=False)
    hidden.square().sum().backward()
    assert all(share.grad is not None and share.grad.abs().sum() > 0 for share in shares)
    changed = tokens.clone()
    changed[:, 6:] = 5
    later, _ = own.hidden(changed, keep=False)
    assert torch.allclose(hidden[:, :6], later[:, :6], atol=1e-6) and not torch.allclose(hidden, later, atol=1e-3)
    with pytest.raises(BadInput, match="Pythia's architecture"):
        trained(tmp_path, token_shift=True)


def test_fresh_embeddings_have_the_size_that_the_architecture_says() -> None:
    for name, size in (("recall-attention", 2.0), ("recall-rwkv4", None)):
        own = load(find(name, weights="fresh:0"))
        before = dict(own.named_parameters())
        first = next(iter(before))
        was = before[first].detach().clone()
        recall.widen_embedding(own)
        now = before[first].detach()
        assert now.std().item() == pytest.approx(size, rel=0.02) if size else (now == was).all()


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="vocabulary of 602"):
        trained(tmp_path, size=300)
    with pytest.raises(BadInput, match="alphabet is 4"):
        trained(tmp_path, size=5, alphabet=4)
    with pytest.raises(BadInput, match="take 64 tokens; length is 60"):
        trained(tmp_path, task="mqar", size=16, length=60)
