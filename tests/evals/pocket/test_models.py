"""The pocket models that ship: their rates were the sweep's best, and their checkpoints are whole and small."""

from collections import defaultdict
from pathlib import Path

import pytest

from bench import matrix
from evals.pocket.make import TOKENIZER_FILE
from reports.records.store import Store
from rwkv_core import load, models

ROOT = Path(__file__).resolve().parents[3]
CHECKPOINTS = TOKENIZER_FILE.parent
NAMES = ["pocket-rwkv4", "pocket-pythia", "pocket-opt", "pocket-bloom"]


def test_every_model_is_trained_at_the_rate_that_the_sweep_found_best() -> None:
    records, damaged = Store(ROOT / "reports/gallery/pocket-training-cpu/records").read()
    assert not damaged
    by_id = {record.id: record for record in records}
    found: dict[str, dict[float, float]] = defaultdict(dict)
    for cell in matrix.read(ROOT / "configs/pocket-sweep.yaml"):
        found[cell.model.name][cell.params["learning_rate"]] = by_id[cell.id].metrics["held_out_loss"]
    for cell in matrix.read(ROOT / "configs/pocket-train.yaml"):
        assert cell.id in by_id
        losses = found[cell.model.name]
        best = min(losses, key=losses.__getitem__)
        assert cell.params["learning_rate"] == best and min(losses) < best < max(losses)


@pytest.mark.parametrize("name", [*NAMES, *(f"{name}-2048" for name in NAMES)])
def test_a_checkpoint_is_small_and_speaks(name: str) -> None:
    folder = CHECKPOINTS / name
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8_000_000
    model = load.load(name)
    counted = model.parameter_count
    assert counted == models.find(name).parameters
    assert counted == pytest.approx(models.find("pocket-rwkv4").parameters, rel=0.05)
    text = "The anchor is made of iron."
    assert model.codec.decode(model.codec.encode(text)) == text
