"""Loss against context: the streamed loss is the fresh one, lengths are what they say, memory does not grow."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench.instruments.memory import Peak
from evals.language import context, corpus
from evals.pocket.make import TOKENIZER_FILE
from rwkv_core import text as tokenizers
from rwkv_core.errors import BadInput
from rwkv_core.load import load
from rwkv_core.models import find
from rwkv_core.spec import ModelSpec

MODELS = ["pocket-rwkv4", "pocket-pythia", "pocket-opt", "pocket-bloom"]


@pytest.mark.parametrize("name", MODELS)
def test_the_streamed_loss_is_that_of_a_fresh_forward(name: str) -> None:
    model = load(find(name, weights="random:0"))
    tokens = torch.randint(0, 1536, (2, 601), generator=torch.Generator().manual_seed(0))
    streamed = np.concatenate([losses for _, losses in context.streamed(model, tokens)], 1)
    assert streamed.shape == (2, 600)
    for n in (1, 2, 255, 256, 257, 512, 600):
        with torch.inference_mode():
            hidden, _ = model.hidden(tokens[:, :n])
            expected = F.cross_entropy(model.logits(hidden[:, -1]), tokens[:, n], reduction="none")
        assert streamed[:, n - 1] == pytest.approx(expected.numpy(), abs=1e-4)


class Counting:
    """A model whose loss of a token is the number of tokens before it."""

    spec = ModelSpec("counting", "rwkv4", {"model_type": "rwkv", "vocab_size": 2})

    def reserve(self, tokens: int) -> None:
        pass

    def hidden(self, tokens: Any, state: Any = None) -> tuple[Any, int]:
        before = (state or 0) + torch.arange(1, tokens.shape[1] + 1)
        return before.expand(len(tokens), -1)[..., None].double(), (state or 0) + tokens.shape[1]

    def logits(self, hidden: Any) -> Any:
        return torch.cat([torch.zeros_like(hidden), (hidden.exp() - 1).log()], -1)  # of token 0: -log softmax = n


def test_a_length_means_that_many_tokens_before() -> None:
    rows = np.zeros((3, 65), dtype=np.int32)
    curve = context.against_context(Counting(), rows, 2, "cpu")  # type: ignore[arg-type]
    assert curve["context"] == [2, 4, 8, 16, 32, 64]
    expected = [2, 4, 7.5, 14.5, 28.5, 56.5]
    assert np.array(curve["losses"]) == pytest.approx(np.array([expected] * 3), rel=1e-3)


def test_each_document_has_its_own_losses() -> None:
    model = load(find("pocket-rwkv4", weights="random:0"))
    rows = np.random.default_rng(0).integers(0, 1536, (5, 33)).astype(np.int32)
    curve = context.against_context(model, rows, 2, "cpu")
    alone = [context.against_context(model, rows[[i]], 2, "cpu")["losses"][0] for i in range(5)]
    assert np.array(curve["losses"]) == pytest.approx(np.array(alone), abs=1e-4)


def test_the_pocket_worlds_levels_are_of_the_same_documents() -> None:
    tokenizer = tokenizers.read(TOKENIZER_FILE)
    rows = corpus.segments("pocket", lambda texts: [e.ids for e in tokenizer.encode_batch(texts)], 257, 3)
    levels = corpus.levels(lambda texts: [e.ids for e in tokenizer.encode_batch(texts)], 257, 3)
    assert levels["no look-up"].shape == levels["perfect look-up"].shape == rows.shape
    for row, nats in zip(rows, levels["no look-up"], strict=True):
        said = tokenizer.decode(list(row))
        begins = [0, *(i for i in range(1, len(row)) if tokenizer.decode(list(row[:i])).endswith("."))]
        changes = [0, *(np.flatnonzero(np.diff(nats)) + 1)]
        assert set(changes) <= set(begins) and said.startswith("A chronicle of")
    curve = context.levels("pocket", lambda texts: [e.ids for e in tokenizer.encode_batch(texts)], 2049, 8)
    assert list(curve["no look-up"]) == list(curve["perfect look-up"]) == [64, 128, 256, 512, 1024, 2048]
    assert curve["perfect look-up"][2048] < curve["no look-up"][2048] - 0.1
    assert context.levels("elsewhere", lambda _: [], 9, 8) == {}


def test_lengths_of_a_few_sentences_have_no_levels() -> None:
    _, curve = context.run(load("pocket-rwkv4"), device="cpu", text="pocket", tokens=32, documents=2)
    assert curve["context"] == [2, 4, 8, 16, 32] and curve["levels"] == {}


def test_memory_does_not_grow_with_the_document() -> None:
    model = load(find("pocket-rwkv4", weights="random:0"))
    tokens = torch.zeros(1, 100_001, dtype=torch.long)
    peaks = []
    for length in (1_000, 100_000):
        peak = Peak("cpu")
        with peak.tracking(), peak.watch():
            context.binned(context.streamed(model, tokens[:, : length + 1]), context.octaves(length))
        peaks.append(peak.metrics()["peak_live_bytes"])
    assert peaks[1] == pytest.approx(peaks[0], rel=0.01)


def test_learned_positions_end_the_curve(tmp_path: Any) -> None:
    for i in range(2):
        (tmp_path / f"{i}.txt").write_text("one two three four five six seven eight nine ten " * 400)
    model = load(find("pocket-opt", weights="random:0"))
    asked = {"device": "cpu", "text": str(tmp_path), "tokenizer": str(TOKENIZER_FILE)}
    metrics, curve = context.run(model, tokens=4096, documents=2, **asked)  # type: ignore[arg-type]
    assert metrics["tokens"] == curve["context"][-1] == 2048


@pytest.mark.parametrize("length", [64, 513, 2049, 4097])
def test_every_row_begins_where_a_long_document_of_the_pocket_world_does(length: int) -> None:
    tokenizer = tokenizers.read(TOKENIZER_FILE)
    rows = corpus.segments("pocket", lambda texts: [e.ids for e in tokenizer.encode_batch(texts)], length, 50)
    assert rows.shape == (50, length)  # none was too short
    assert all(tokenizer.decode(list(row)).startswith("A chronicle of") for row in rows)


def test_one_file_alone_is_not_trained_on(tmp_path: Any) -> None:
    (tmp_path / "only.txt").write_text("one two three " * 100)
    with pytest.raises(BadInput, match="one file alone"):
        corpus.stream(str(tmp_path), lambda texts: [[1, 2, 3] for _ in texts], 0, 10, held_out=False, long=0)


def test_rows_come_from_every_file_that_is_held_out(tmp_path: Any) -> None:
    for i in range(30):
        (tmp_path / f"{i:02d}.txt").write_text(str(i))
    rows = corpus.segments(str(tmp_path), lambda texts: [list(range(int(t), int(t) + 100)) for t in texts], 30, 5)
    assert [row[0] for row in rows] == [27, 28, 29, 57, 58]
