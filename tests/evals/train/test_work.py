"""Where a training keeps what it goes on from: a changed name would lose what an interrupted run has done."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evals.language import extend, pretrain
from evals.lra import run as lra
from evals.pocket.make import TOKENIZER_FILE
from evals.recall import run as recall
from evals.train import work
from rwkv_core import fingerprint
from rwkv_core.load import load
from rwkv_core.models import find

TEXT: dict[str, Any] = {"device": "cpu", "tokenizer": str(TOKENIZER_FILE)}
STAGES = [{"window": 32, "tokens": 256, "rate": 1e-3}]


ROOT = Path(__file__).resolve().parents[3]


class Begun(Exception):
    """In place of a training: where it would have been kept."""


def _pretrain(text: str, work: str) -> Any:
    model = load(find("pocket-rwkv4", weights="fresh:3"))
    sizes = {"steps": 4, "learning_rate": 1e-3, "final_learning_rate": 1e-4, "window": 16, "batch": 4}
    return pretrain.run(model, text=text, work=work, **TEXT, **sizes)


def _extend(text: str, work: str) -> Any:
    model = load(find("pocket-rwkv4", weights="fresh:3"))
    return extend.run(model, text=text, work=work, schedule="small", batch_tokens=64, documents=3, **TEXT)


def _recall(text: str, work: str) -> Any:
    model = load(find("recall-rwkv4", weights="fresh:3"))
    return recall.run(model, device="cpu", task="mqar", size=4, learning_rate=1e-2, work=work)


def _lra(text: str, work: str) -> Any:
    sizes = {
        "length": 48,
        "layers": 1,
        "width": 16,
        "heads": 2,
        "inner": 64,
        "steps": 30,
        "batch": 16,
        "eval_every": 10,
    }
    counts = {"train_count": 100, "validation_count": 40, "test_count": 50}
    settings: dict[str, Any] = {"device": "cpu", "dtype": "float32", "protocol": "test", **sizes, **counts}
    return lra.run(seed=3, task="listops", mixer="attention", work=work, **settings)


@pytest.mark.parametrize(
    ("module", "run", "name"),
    [
        (pretrain, _pretrain, "pocket-rwkv4-37a33ae5c6"),
        (extend, _extend, "pocket-rwkv4-047b24f68f"),
        (recall, _recall, "recall-rwkv4-e460794039"),
        (lra, _lra, "lra-d9d54288b92b"),
    ],
    ids=["pretrain", "extend", "recall", "lra"],
)
def test_the_same_training_is_kept_in_the_same_folder_as_ever(
    module: Any, run: Callable[[str, str], Any], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text").mkdir()
    for i in range(2):
        (tmp_path / "text" / f"{i}.txt").write_text("one two three four five " * 400)

    def begin(objective: Any, batch: Any, recipe: Any, folder: Path, **_: Any) -> None:
        raise Begun(folder)

    monkeypatch.setattr(module, "train", begin)
    monkeypatch.setattr(fingerprint, "of", lambda _: "0123456789abcdef")  # of weights that a CPU draws
    monkeypatch.setattr(extend, "schedules", lambda: {"small": STAGES})
    with pytest.raises(Begun) as begun:
        run(str(tmp_path / "text"), str(tmp_path / "work"))
    assert begun.value.args == (tmp_path / "work" / name,)


def test_without_a_place_it_is_in_results() -> None:
    assert work.place("") == ROOT / "results" / "work"
    assert work.folder("", "name", ["key"], 4) == ROOT / "results" / "work" / "name-2c70"
