"""Context extension: what a stage trains on and measures, and what is refused before any of it is done."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evals.language import corpus, extend, pretrain
from evals.pocket.make import TOKENIZER_FILE
from rwkv_core.errors import BadInput, Unsupported
from rwkv_core.load import load
from rwkv_core.models import find

STAGES = [{"window": 32, "tokens": 256, "rate": 1e-3}, {"window": 64, "tokens": 256, "rate": 1e-3}]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(extend, "schedules", lambda: {"small": STAGES})
    places = {"work": str(tmp_path / "work"), "out": str(tmp_path / "out"), "tokenizer": str(TOKENIZER_FILE)}
    return {"device": "cpu", "schedule": "small", "batch_tokens": 64, "documents": 3, **places}


def text(folder: Path, words: int) -> str:
    folder.mkdir()
    for i in range(2):
        (folder / f"{i}.txt").write_text("one two three four five " * (words // 5))
    return str(folder)


def test_each_stage_goes_on_from_the_one_before_and_the_model_given_stays(settings: Any, tmp_path: Path) -> None:
    model = load(find("pocket-rwkv4", weights="fresh:0"))
    before = [p.clone() for _, p in model.named_parameters()]
    metrics, samples = extend.run(model, text=text(tmp_path / "text", 2000), **settings)
    stages = samples["stages"]
    assert [(s["window"], s["tokens"]) for s in stages] == [(256, 0), (32, 256), (64, 256)]
    assert all(np.array(stage["losses"]).shape == (3, 6) and stage["context"][-1] == 64 for stage in stages)
    means = [np.mean(stage["losses"]) for stage in stages]
    assert means[0] > means[1] > means[2]
    assert metrics["tokens"] == 512 and samples["levels"] == {}
    assert all((p == q).all() for (_, p), q in zip(model.named_parameters(), before, strict=True))
    assert (tmp_path / "out" / "pocket-rwkv4-64" / "model.safetensors").is_file()


def test_without_longer_windows_the_same_documents_are_read(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, bytes]] = []
    stream = corpus.stream

    def recorded(*args: Any, long: int, **more: Any) -> Any:
        found = stream(*args, long=long, **more)
        read.append((long, found.tobytes()))
        return found

    monkeypatch.setattr(extend.corpus, "stream", recorded)
    model = load(find("pocket-rwkv4", weights="fresh:0"))
    for stages, reach in ((STAGES, 0), ([{**stage, "window": 16} for stage in STAGES], 64)):
        monkeypatch.setattr(extend, "schedules", lambda stages=stages: {"small": stages})
        _, samples = extend.run(model, text="pocket", reach=reach, **settings)
        assert samples["stages"][-1]["context"][-1] == 64 and set(samples["levels"]) == {
            "no look-up",
            "perfect look-up",
        }
    assert read[0] == read[1] and read[0][0] == 65


def test_what_cannot_be_done_is_said_before_anything_is_trained(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extend, "train", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(BadInput, match="tokens to train on, and small takes 513"):
        extend.run(load(find("pocket-rwkv4", weights="fresh:0")), text=text(tmp_path / "short", 50), **settings)
    with pytest.raises(Unsupported, match="2048 learned positions, not 4096"):
        extend.run(load(find("pocket-opt", weights="fresh:0")), text="pocket", reach=4096, **settings)
    monkeypatch.setattr(extend, "schedules", lambda: {"small": [{"window": 64, "tokens": 10**15, "rate": 1e-3}]})
    with pytest.raises(BadInput, match="more than fit into memory"):
        extend.run(load(find("pocket-rwkv4", weights="fresh:0")), text="pocket", **settings)


def test_of_files_all_are_held_out_alike_and_a_part_is_trained_on_that_is_no_alphabet(tmp_path: Path) -> None:
    for i in range(40):
        (tmp_path / f"{i:02d}.txt").write_text(str(i))

    def encode(texts: list[str]) -> list[list[int]]:
        return [[int(t)] * 100 for t in texts]

    held_out = corpus.stream(str(tmp_path), encode, 0, 80, held_out=True, long=0)
    assert {n: int((held_out == n).sum()) for n in set(held_out)} == {36: 20, 37: 20, 38: 20, 39: 20}
    trained = corpus.stream(str(tmp_path), encode, 0, 1000, held_out=False, long=0)
    assert len(trained) == 1000 and not set(trained) & {36, 37, 38, 39}
    assert max(set(trained)) > 20  # not the first of them by name
    again = corpus.stream(str(tmp_path), encode, 0, 1000, held_out=False, long=0)
    assert (trained == again).all()


def test_a_short_text_is_passed_over_again_and_the_record_says_so(tmp_path: Path) -> None:
    settings = {"device": "cpu", "tokenizer": str(TOKENIZER_FILE), "learning_rate": 1e-3, "final_learning_rate": 1e-4}
    small: Any = {"steps": 8, "window": 16, "batch": 2, "work": str(tmp_path / "work")}
    model = load(find("pocket-rwkv4", weights="fresh:0"))
    for words, once in ((20, False), (2000, True)):
        folder = text(tmp_path / f"{words}", words)
        metrics, _ = pretrain.run(model, text=folder, **settings, **small)  # type: ignore[arg-type]
        assert (metrics["passes"] == 1) is once and metrics["passes"] >= 1
