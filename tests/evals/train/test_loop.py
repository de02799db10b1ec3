"""The training loop: the same twice, the same after a kill, the same on every kernel."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench import matrix
from bench.launch import LAUNCHERS
from evals.language import corpus, pretrain
from evals.language.pretrain import NextToken
from evals.pocket.make import TOKENIZER_FILE
from evals.train import loop, resume
from evals.train.loop import train
from evals.train.recipe import Recipe, Undecayed
from rwkv_core.errors import BadInput
from rwkv_core.load import load
from rwkv_core.models import find
from rwkv_core.rwkv.model import RWKV
from rwkv_core.spec import ModelSpec

SHAPE = {"model_type": "rwkv", "vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2}
TOKENS = np.random.default_rng(0).integers(0, 64, 4000).astype(np.int32) // 7
RECIPE = Recipe(steps=12, learning_rate=5e-3, end_rate=1e-3, rise=3)


def model() -> Any:
    return load(ModelSpec("small", "rwkv4", SHAPE, weights="fresh:0"))


def losses(work: Path, recipe: Recipe = RECIPE, fresh: Any = None) -> list[float]:
    objective = NextToken(fresh or model())
    log = train(objective, corpus.windows(TOKENS, 32, 4, 0), recipe, work)
    return [entry["loss"] for entry in log]


def test_the_same_seed_gives_the_same_curve_and_it_falls(tmp_path: Path) -> None:
    first, again = losses(tmp_path / "a"), losses(tmp_path / "b")
    assert first == pytest.approx(again, abs=1e-6)
    assert first[-1] < first[0] - 0.5
    logged = [json.loads(line) for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    assert [entry["loss"] for entry in logged] == first
    assert [entry["step"] for entry in logged] == list(range(12))


def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = losses(tmp_path / "whole")
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)  # saved after every step
    at = corpus.windows(TOKENS, 32, 4, 0)

    class Killed(Exception):
        pass

    def until_the_eighth(step: int) -> Any:
        if step == 8:
            raise Killed
        return at(step)

    broken = model()
    with pytest.raises(Killed):
        train(NextToken(broken), until_the_eighth, RECIPE, tmp_path / "broken")
    with (tmp_path / "broken" / "log.jsonl").open("a") as log:
        log.write('{"step": 8, "loss": 1.0}\n')  # logged, but its weights were never saved
    assert losses(tmp_path / "broken") == pytest.approx(whole, abs=1e-6)
    assert len((tmp_path / "broken" / "log.jsonl").read_text().splitlines()) == 12


def test_a_process_killed_by_the_system_goes_on(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from evals.train import loop;"
        "from tests.evals.train.test_loop import losses;"
        "loop.SAVE_SECONDS = 0.0; import time; wait = lambda: time.sleep(0.2);"
        "rate = loop.Recipe.rate; loop.Recipe.rate = lambda self, step: (wait(), rate(self, step))[1];"
        "losses(Path(sys.argv[1]))"
    )
    work = tmp_path / "work"
    child = subprocess.Popen([sys.executable, "-c", script, str(work)], stderr=subprocess.DEVNULL)
    while not (work / "state.pt").is_file() and child.poll() is None:
        time.sleep(0.02)  # far less than the child takes for its steps
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert 0 < torch.load(work / "state.pt", weights_only=True)["done"] < 12
    assert losses(work) == pytest.approx(losses(tmp_path / "whole"), abs=1e-6)


def test_a_save_that_is_cut_off_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(trained.parameters())
    resume.save_state(tmp_path, trained, optimizer, RECIPE, 5)
    resume.save_best(tmp_path, trained)
    before = trained.weight.tolist()

    def cut_off(state: Any, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", cut_off)
    with torch.no_grad():
        trained.weight.fill_(0)
    for save in (
        lambda: resume.save_state(tmp_path, trained, optimizer, RECIPE, 6),
        lambda: resume.save_best(tmp_path, trained),
    ):
        with pytest.raises(KeyboardInterrupt):
            save()
    assert resume.load_state(tmp_path, trained, optimizer, RECIPE) == 5 and trained.weight.tolist() == before
    with torch.no_grad():
        trained.weight.fill_(0)
    resume.load_best(tmp_path, trained)
    assert trained.weight.tolist() == before


def test_another_recipe_does_not_go_on_from_this_one(tmp_path: Path) -> None:
    losses(tmp_path)
    with pytest.raises(BadInput, match="another recipe"):
        losses(tmp_path, Recipe(steps=20, learning_rate=5e-3, end_rate=1e-3, rise=3))


def test_dynamics_do_not_decay_and_may_learn_slower(tmp_path: Path) -> None:
    class Decayed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix, self.table = torch.nn.Parameter(torch.ones(2, 2)), Undecayed(torch.ones(2, 2))
            self.slow = Undecayed(torch.ones(2, 2))
            self.slow.rate_at_most = 0.01

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum() * (self.table.sum() + self.slow.sum() + 0 * self.matrix.sum())

    model = Decayed()
    train(model, lambda step: [torch.ones(1)], Recipe(1, 0.1, 0.1, rise=1, weight_decay=1.0), tmp_path)
    assert model.matrix[0, 0].item() == pytest.approx(0.9)  # no gradient: decay alone, at the rate of 0.1
    assert model.table[0, 0].item() == pytest.approx(0.9, abs=1e-3)  # Adam's step, of the size of the rate
    assert model.slow[0, 0].item() == pytest.approx(0.99, abs=1e-3)


def test_a_loss_that_is_no_number_stops(tmp_path: Path) -> None:
    broken = model()
    with torch.no_grad():
        broken.emb.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"the loss is nan .* at step 0, first of all in emb; try"):
        losses(tmp_path, fresh=broken)


def test_gradients_that_are_no_numbers_stop_before_the_weights_take_them(tmp_path: Path) -> None:
    class Rooted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * self.weight).square().sum().sqrt()  # 0, with the gradient 0/0

    model = Rooted()
    with pytest.raises(FloatingPointError, match=r"the loss is 0\.0 and the gradients' norm nan at step 0; try"):
        train(model, lambda step: [torch.ones(1, 2)], Recipe(1, 0.1, 0.1), tmp_path)
    assert model.weight.tolist() == [0.0, 0.0]


def test_the_schedule_is_the_papers() -> None:
    recipe = Recipe(steps=1000, learning_rate=6e-4, end_rate=1e-5, constant=0.2, rise=20)
    assert recipe.rate(0) == pytest.approx(3e-5)
    assert recipe.rate(20) == recipe.rate(200) == 6e-4
    assert recipe.rate(600) == pytest.approx((6e-4 * 1e-5) ** 0.5)  # half way of an exponential fall
    assert recipe.rate(1000) == pytest.approx(1e-5)


@pytest.mark.parametrize("impl", ["torch", "c"])
def test_the_loss_is_the_same_on_every_kernel(impl: str, tmp_path: Path) -> None:
    curves = []
    for name in ("reference", impl):
        fresh = model()
        fresh.impl = name
        curves.append(losses(tmp_path / name, fresh=fresh))
    assert curves[1] == pytest.approx(curves[0], abs=1e-4)


def test_the_interpreted_triton_kernel_trains_alike(tmp_path: Path) -> None:
    script = (
        "import sys, json; from pathlib import Path; from tests.evals.train.test_loop import losses, model, Recipe;"
        "fresh = model(); fresh.impl = 'triton'; recipe = Recipe(steps=2, learning_rate=5e-3, end_rate=1e-3, rise=1);"
        "print(json.dumps(losses(Path(sys.argv[1]), recipe, fresh)))"
    )
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "triton")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    expected = losses(tmp_path / "plain", Recipe(steps=2, learning_rate=5e-3, end_rate=1e-3, rise=1))
    assert json.loads(done.stdout) == pytest.approx(expected, abs=1e-4)


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.mkdir()
    for i in range(2):
        (text / f"{i}.txt").write_text("one two three four five " * 100)
    run = "{{experiment: pretrain, model: pocket-rwkv4, weights: 'fresh:1', text: {text}, tokenizer: {tokenizer}, "
    run += "steps: 3, learning_rate: 1.0e-3, final_learning_rate: 1.0e-4, window: 16, batch: 4, "
    run += "processes: {n}, work: {work}}}"
    curves = []
    for n, name in ((1, "here"), (2, "together")):
        path = tmp_path / "matrix.yaml"
        path.write_text(f"runs: [{run.format(text=text, tokenizer=TOKENIZER_FILE, n=n, work=tmp_path / str(n))}]")
        (record,) = LAUNCHERS[name].measure(matrix.read(path), 1)
        assert record.status == "ok", record.traceback
        curves.append(record.samples["loss"])
    assert curves[1] == pytest.approx(curves[0], abs=1e-4)
    (again,) = LAUNCHERS["together"].measure(matrix.read(path), 1)  # trained, but killed before the record was written
    assert again.status == "ok" and again.samples["loss"] == curves[1]


def test_every_window_once_an_epoch() -> None:
    at = corpus.windows(np.arange(1001, dtype=np.int32), 10, 8, 0)
    starts = sorted(int(row[0]) for step in range(12) for row in at(step)[0])
    assert len(set(starts)) == 96 and all(start % 10 == 0 for start in starts)
    assert not torch.equal(at(0)[0], at(12)[0])
    assert torch.equal(at(3)[0], corpus.windows(np.arange(1001, dtype=np.int32), 10, 8, 0)(3)[0])


@pytest.mark.parametrize("name", ["pocket-rwkv4", "pocket-pythia", "pocket-opt", "pocket-bloom"])
def test_pretrain_writes_a_model_that_loads_and_scores_alike(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrain, "HELD_OUT_TOKENS", 4097)  # enough to compare with
    fresh = load(find(name, weights="fresh:1"))
    metrics, samples = pretrain.run(
        fresh,
        device="cpu",
        text="pocket",
        tokenizer=str(TOKENIZER_FILE),
        steps=3,
        learning_rate=1e-3,
        final_learning_rate=1e-4,
        batch=4,
        window=64,
        work=str(tmp_path / "work"),
        out=str(tmp_path / "out"),
    )
    assert len(samples["loss"]) == 3 and metrics["tokens"] == 768
    assert metrics["parameters"] == fresh.spec.parameters
    trained = load(find(name, weights=str(tmp_path / "out" / name)))
    encode, end = corpus.codec(trained, str(TOKENIZER_FILE))
    tokens = corpus.stream("pocket", encode, end, pretrain.HELD_OUT_TOKENS, held_out=True, long=0)
    again = pretrain.held_out_loss(NextToken(trained), corpus.windows(tokens, 64, 4, 0), 16)
    assert again == pytest.approx(metrics["held_out_loss"], abs=2e-3)  # bfloat16 weights


def test_half_precision_weights_are_not_trained() -> None:
    half = load(ModelSpec("small", "rwkv4", SHAPE, weights="fresh:0"), dtype="bfloat16")
    with pytest.raises(BadInput, match="float32"):
        pretrain.run(
            half, device="cpu", text="pocket", tokenizer="x", steps=1, learning_rate=1.0, final_learning_rate=1.0
        )


def test_only_fresh_weights_are_trained() -> None:
    random = load(ModelSpec("small", "rwkv4", SHAPE, weights="random:0"))
    with pytest.raises(BadInput, match="fresh:SEED"):
        pretrain.run(
            random, device="cpu", text="pocket", tokenizer="x", steps=1, learning_rate=1.0, final_learning_rate=1.0
        )


def test_a_model_of_the_paper_begins_with_the_papers_weights() -> None:
    fresh = model()
    assert isinstance(fresh, RWKV) and not fresh.blocks[0].att.key.weight.any()
