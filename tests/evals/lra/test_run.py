"""The lra experiment: chosen on validation, tested once, the same after a kill, evaluated in between."""

from pathlib import Path
from typing import Any

import pytest
import torch

from evals.lra import data, run
from evals.train import loop
from evals.train.loop import train
from evals.train.recipe import Recipe
from rwkv_core.errors import BadInput, Unsupported

SMALL: dict[str, Any] = {
    "task": "listops",
    "mixer": "rwkv4",
    "protocol": "test",
    "length": 48,
    "layers": 1,
    "width": 16,
    "heads": 2,
    "inner": 64,
    "steps": 30,
    "batch": 16,
    "learning_rate": 1e-2,
    "train_count": 100,
    "validation_count": 40,
    "test_count": 50,
    "eval_every": 10,
}


def measured(tmp_path: Path, **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return run.run(device="cpu", dtype="float32", work=str(tmp_path), **{**SMALL, **more})


def test_what_is_best_on_validation_is_tested(tmp_path: Path) -> None:
    metrics, samples = measured(tmp_path)
    assert [step for step, _ in samples["validation"]] == [10, 20, 30] and len(samples["loss"]) == 30
    best = max(score for _, score in samples["validation"])
    assert metrics["validation_accuracy"] == best == dict(samples["validation"])[metrics["best_step"]]
    assert metrics["accuracy"] == sum(samples["right"]) / 50 and metrics["docs"] == 50
    parts = data.load("listops", data.GENERATED, SMALL["length"], (100, 40, 50), 0, tmp_path)
    assert metrics["data_source"] == "generated" and metrics["root"] != metrics["validation_root"]
    for prefix, part in (("", parts.test), ("validation_", parts.validation)):
        assert metrics[f"{prefix}majority"] == part.majority
        assert metrics[f"{prefix}root"] == data.root_rule(parts.train, part)
    again, other = measured(tmp_path / "other")
    assert measured(tmp_path / "other", seed=1)[1]["loss"] != other["loss"]
    assert other["loss"] == pytest.approx(samples["loss"], abs=1e-5) and again["accuracy"] == metrics["accuracy"]


def test_a_task_is_learned(tmp_path: Path) -> None:
    metrics, _ = measured(tmp_path, mixer="attention", task="retrieval", length=400, steps=40, train_count=200)
    assert metrics["data_source"] == "stand-in"
    learned, _ = measured(tmp_path, steps=300, length=24, train_count=2000, mixer="lstm", eval_every=50)
    assert learned["accuracy"] > learned["majority"] + 0.1


@pytest.mark.parametrize(
    ("more", "error", "why"),
    [
        ({"mixer": "mamba"}, Unsupported, "cannot be run in both directions"),
        ({"task": "text"}, Unsupported, "not generated"),
        ({"train_count": 0}, BadInput, "how many samples"),
        ({"batch": 200}, BadInput, "100 training samples are fewer than a batch of 200"),
    ],
)
def test_what_cannot_be_measured_is_said(tmp_path: Path, more: Any, error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        measured(tmp_path, **more)


class Line(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.at = torch.nn.Parameter(torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ((self.at - x) ** 2).sum()


def test_the_best_weights_are_kept_over_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluated by how near it is to half of what it is trained towards, it is best halfway."""
    recipe = Recipe(40, 0.05, 0.05)

    def trained(folder: Path, kill: int = 0) -> tuple[list[dict[str, float]], torch.Tensor]:
        model = Line()

        def batch(step: int) -> list[torch.Tensor]:
            if kill and step == kill:
                raise KeyboardInterrupt
            return [torch.ones(1, 2)]

        def nearness() -> float:
            return -float((model.at.detach() - 0.5).abs().sum())

        log = train(model, batch, recipe, folder, evaluate=nearness, eval_every=5)
        return log, model.at.detach()

    log, best = trained(tmp_path / "whole")
    scores = [entry["score"] for entry in log if "score" in entry]
    assert len(scores) == 8 and scores.index(max(scores)) not in (0, 7)
    assert -float((best - 0.5).abs().sum()) == pytest.approx(max(scores))
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", kill=23)
    again, resumed = trained(tmp_path / "cut")
    assert [entry.get("score") for entry in again] == [entry.get("score") for entry in log]
    assert torch.equal(resumed, best)
