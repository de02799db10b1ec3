"""No number from NaN or infinity: every reader of logits refuses them and names the layer that made them."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.speed import inference, peers
from evals.ask.score import Scorer
from evals.ask.sharing import Request
from evals.language import context, pretrain
from evals.lra import run as lra
from evals.lra.data import Split
from evals.lra.encoder import Encoder, Problem, Size
from evals.recall import run as recall
from evals.recall.sequences import Sequences
from evals.zeroshot import run as zeroshot
from rwkv_core import finite, load, models
from rwkv_core.errors import BadInput
from rwkv_core.rwkv import checkpoint
from rwkv_core.rwkv.model import RWKV
from rwkv_core.spec import LanguageModel, ModelSpec
from tests.checks import parity
from tests.evals.ask.test_generate import letters
from tests.evals.ask.test_score import WIDE, same, some_requests
from tests.rwkv_core.runtimes.test_hf import SMALL

SHAPES: dict[str, Any] = {
    "rwkv4": {"model_type": "rwkv", "vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 2},
    **SMALL,
}
LAYERS = {  # the second layer's matrix that ends it, and the layer that is named
    "rwkv4": ("blocks.1.ffn.value.weight", r"blocks\.1\.ffn"),
    "pythia": ("gpt_neox.layers.1.mlp.dense_4h_to_h.weight", r"gpt_neox\.layers\.1\.mlp\.dense_4h_to_h"),
    "opt": ("model.decoder.layers.1.fc2.weight", r"model\.decoder\.layers\.1\.fc2"),
    "bloom": ("transformer.h.1.mlp.dense_4h_to_h.weight", r"transformer\.h\.1\.mlp\.dense_4h_to_h"),
    "gpt-neo": ("transformer.h.1.mlp.c_proj.weight", r"transformer\.h\.1\.mlp\.c_proj"),
    "mamba": ("backbone.layers.1.mixer.out_proj.weight", r"backbone\.layers\.1\.mixer\.out_proj"),
}


def overflowing(family: str, dtype: str, largest: float) -> LanguageModel:
    """A model with finite weights whose second layer goes beyond `largest`."""
    model = load.load(ModelSpec(family, family, SHAPES[family], weights="random:1"), dtype=dtype)
    (weight,) = [p for name, p in model.named_parameters() if name.endswith(LAYERS[family][0])]
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 2 and ".1." in name:
                p.mul_(30)
        weight.copy_(weight.sign() * 0.9 * largest)
    finite.check_weights(model.spec.name, model)
    return model


@pytest.mark.parametrize("family", LAYERS)
def test_the_first_layer_is_named_with_the_type_and_the_way_out(family: str) -> None:
    half = family != "mamba"  # which transformers runs on CPUs in float32 only
    dtype, mend = ("float16", "write `dtype: bfloat16` or `dtype: float32`") if half else ("float32", "the weights are")
    largest = torch.finfo(getattr(torch, dtype)).max
    with pytest.raises(BadInput, match=rf"^{family}: {LAYERS[family][1]} is the first layer .* in {dtype}; {mend}"):
        Scorer(overflowing(family, dtype, largest), "cpu").score(some_requests())
    if half:
        Scorer(overflowing(family, "float32", largest), "cpu").score(some_requests())  # all is well there


def poisoned() -> RWKV:
    """Of the second layer on, every value is NaN."""
    model = parity.make("tiny")
    with torch.no_grad():
        model.blocks[1].att.key.weight[0, 0] = torch.nan
    return model


def _generate() -> None:
    asker = letters("rwkv4")
    with torch.no_grad():
        asker.scorer.model.blocks[1].att.key.weight[0, 0] = torch.nan  # type: ignore[attr-defined]
    asker.generate([("abc", {"until": [], "max_gen_toks": 4})])


def _classify() -> None:
    encoder = Encoder("rwkv4", Size(2, 8, 2, 8), Problem(4, 2, 8), bidirectional=True)
    with torch.no_grad():
        encoder.blocks[1].wide.weight[0, 0] = torch.nan  # type: ignore[index,union-attr]
    lra._right(encoder, Split(np.ones((3, 8), int), np.full(3, 8), np.zeros(3, int)), "cpu")


ROWS = np.zeros((2, 9), dtype=np.int64)
READERS: dict[str, Callable[[], object]] = {
    "scores": lambda: Scorer(poisoned(), "cpu").score([Request(np.zeros(5, np.int32), 2)]),
    "generated text": _generate,
    "losses": lambda: context.against_context(poisoned(), ROWS, 2, "cpu"),
    "held-out loss": lambda: pretrain.held_out_loss(
        pretrain.NextToken(poisoned()), lambda _: [torch.zeros(1, 9, dtype=torch.long)], 1
    ),
    "recall": lambda: recall.answered(poisoned(), Sequences(ROWS, ROWS, 0.0), "cpu"),
    "long range arena": _classify,
    "inference, fair": lambda: inference.run(poisoned(), device="cpu", prompt_tokens=3, new_tokens=4),
    "inference, paper": lambda: inference.run(
        poisoned(), device="cpu", protocol="paper", prompt_tokens=3, new_tokens=4
    ),
    "peers": lambda: peers.run(poisoned(), device="cpu", task="prompt", tokens=3),
}


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_of_logits_refuses_them(reader: str) -> None:
    with pytest.raises(
        BadInput, match=r"blocks\.1\.\w+ is the first layer .* not finite in float32; (the weights|training)"
    ):
        READERS[reader]()


def test_inference_without_a_cache_looks_at_every_position() -> None:
    """One position alone is infinite, and only in the logits: no later one sees it."""
    model = load.load(ModelSpec("pythia", "pythia", SMALL["pythia"], weights="random:1"))
    right = model.logits

    def spoiled(hidden: torch.Tensor) -> torch.Tensor:
        logits = right(hidden)
        if logits.dim() == 2 and len(logits) > 9:  # not the timed loop's
            logits[7, 5] = -torch.inf
        return logits

    model.logits = spoiled  # type: ignore[method-assign]
    with pytest.raises(BadInput, match="pythia: its logits have values that are not finite in float32"):
        inference.run(model, device="cpu", protocol="paper", prompt_tokens=3, new_tokens=9)


@pytest.mark.parametrize("family", ["rwkv4", "pythia"])
def test_inference_with_a_state_looks_at_every_position(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[tuple[int, int]] = []

    def spy(_: LanguageModel, hidden: torch.Tensor, tokens: torch.Tensor) -> None:
        looked.append((tokens.shape[1] - hidden.shape[1], tokens.shape[1]))

    monkeypatch.setattr(finite, "check", spy)
    model = load.load(ModelSpec(family, family, SHAPES[family], weights="random:1"))
    inference.run(model, device="cpu", prompt_tokens=3, new_tokens=18)
    starts = [i for i, (first, _) in enumerate(looked) if first == 0]
    for begin, end in itertools.pairwise([*starts, len(looked)]):  # a run for each length at which memory is read
        ends = [0, *(last for _, last in looked[begin:end])]
        assert [first for first, _ in looked[begin:end]] == ends[:-1]
    assert len(starts) == 5 and ends[-1] == 20  # the last new token is not fed


def test_what_nobody_reads_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load.load(ModelSpec("bloom", "bloom", SMALL["bloom"], weights="random:1"))
    requests = some_requests()
    expected, _ = Scorer(model, "cpu", limits=WIDE).score(requests)
    hidden = model.hidden
    spoiled = []

    def padded(tokens: Any, state: Any = None, lengths: Any = None, keep: bool = True) -> Any:
        out, after = hidden(tokens, state, lengths, keep)
        if lengths is not None:
            padding = torch.arange(tokens.shape[1]) >= lengths[:, None]
            spoiled.append(int(padding.sum()))
            out = out.masked_fill(padding[..., None], torch.nan)
        return out, after

    monkeypatch.setattr(model, "hidden", padded)
    found, _ = Scorer(model, "cpu", limits=WIDE).score(requests)
    assert sum(spoiled) > 0
    same(found, [(answer.loglikelihood, answer.greedy) for answer in expected])


@pytest.mark.parametrize("value,dtype,mend", [
    (torch.nan, "float32", "the weights are damaged"),
    (torch.nan, "float16", "the weights are damaged"),
    (-torch.inf, "bfloat16", "see whether `dtype: float32`"),
    (1e5, "float16", "write `dtype: bfloat16` or `dtype: float32`"),
])  # fmt: skip
def test_a_checkpoints_weights_are_looked_at(tmp_path: Path, value: float, dtype: str, mend: str) -> None:
    model = parity.make("tiny")
    with torch.no_grad():
        model.blocks[1].ffn.key.weight[2, 1] = value
        model.ln_out.bias[0] = value
    path = tmp_path / "m.pth"
    checkpoint.save_pth(model.state_dict(), path)
    spec = ModelSpec("tiny", "rwkv4", model.spec.architecture, weights=str(path))
    with pytest.raises(BadInput, match=rf"blocks\.1\.ffn\.key\.weight and 1 more .* in {dtype}; {mend}"):
        load.load(spec, dtype=dtype)


def test_beyond_float16_the_same_model_answers_in_float32(tmp_path: Path) -> None:
    """The last norm is so large that float16 cannot hold it, and the head so much smaller: the same function."""
    source = models.ROOT / "evals/pocket/checkpoints/pocket-pythia"
    tensors = {name: tensor.float() for name, tensor in load_file(source / "model.safetensors").items()}
    for name in tensors:
        if name.startswith("gpt_neox.final_layer_norm"):
            tensors[name] = tensors[name] * 6e4
    tensors["embed_out.weight"] = tensors["embed_out.weight"] / 6e4
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for path in (source / "config.json", source.parent / "tokenizer.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    spec = models.find("pocket-pythia", weights=str(tmp_path))
    with pytest.raises(BadInput, match=r"gpt_neox\.final_layer_norm\.weight hold values .* in float16; write"):
        load.load(spec, dtype="float16")
    model = load.load(spec)
    for task, metric, right in (("piqa", "acc", 0.95), ("arc_challenge", "acc_norm", 0.5)):
        metrics, _ = zeroshot.run(model, device="cpu", task=task, data="pocket", docs=40)
        assert metrics[metric] == pytest.approx(right)
