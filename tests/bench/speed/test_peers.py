"""Whole models in other programs: llama.cpp and its files, torch's int8, contexts, and what is said of them."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from bench.speed import gguf_files, llama_cpp, peer, peers, torch_int8
from reports.views import races
from reports.views.table import read
from rwkv_core.errors import BadInput, Unsupported
from rwkv_core.linear import products
from rwkv_core.load import load
from rwkv_core.runtimes import pip_rwkv
from rwkv_core.spec import ModelSpec
from tests.bench.speed.test_race import raced
from tests.checks import parity
from tests.rwkv_core.runtimes.test_hf import SMALL, small

pytestmark = pytest.mark.usefixtures("single")
HERE = llama_cpp.installed()
RWKV = ["rwkv6", "rwkv7"]
TRANSFORMERS = ["pythia", "llama"]
ROWS = {"vocab_size": 301, "hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 256}  # of whole blocks
BOUND = {"pythia": llama_cpp.BOUNDS["gpt_neox"]}  # of its GELU


def model(family: str, **shape: Any) -> Any:
    if family in RWKV:
        return parity.make("tiny", version=family)
    return load(ModelSpec(family, family, {**SMALL[family], **ROWS, **shape}, weights="random:1"))


def whole(subject: Any, ids: Tensor) -> Tensor:
    """The logits [T, V] of tokens [T] read at once."""
    with torch.inference_mode():
        return peer.logits(subject, ids)


class Fake:
    """llama_cpp.Engine over the model itself; `off` is added to the logits of each kind."""

    off: ClassVar[dict[str, float]] = {}

    def __init__(self, subject: Any, kind: str, tokens: int, threads: int) -> None:
        gguf_files.LAYOUTS[subject.spec.architecture["model_type"]](subject)  # which may refuse
        self.subject, self.added = subject, self.off.get(kind, 0.0)

    def each(self, tokens: Sequence[int]) -> Tensor:
        return whole(self.subject, torch.tensor(tokens)) + self.added

    def prompt(self, tokens: Sequence[int]) -> peer.Step:
        return lambda: self.each(tokens)[-1:]

    token = prompt


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_cpp, "installed", lambda: True)
    monkeypatch.setattr(llama_cpp, "Engine", Fake)
    monkeypatch.setattr(llama_cpp, "_described", lambda kind, threads: f"llama.cpp {kind}, threads {threads}")
    monkeypatch.setattr(Fake, "off", {})


def stored(subject: Any, folder: Path, kind: str = "F32") -> tuple[dict[str, Any], dict[str, Tensor], dict[str, str]]:
    """What a file says of itself, its tensors in full, and their types."""
    gguf = pytest.importorskip("gguf")
    path = folder / "model.gguf"
    gguf_files.write(subject, path, kind)
    file = gguf.GGUFReader(path)
    facts = {name: field.contents() for name, field in file.fields.items()}
    full = {one.name: gguf.quants.dequantize(one.data, one.tensor_type) for one in file.tensors}
    tensors = {name: torch.from_numpy(values.copy()) for name, values in full.items()}
    return facts, tensors, {one.name: one.tensor_type.name for one in file.tensors}


@pytest.mark.parametrize("tied", [True, False])
def test_a_file_of_llama_has_its_weights(tmp_path: Path, tied: bool) -> None:
    subject = model("llama", tie_word_embeddings=tied)
    facts, tensors, _ = stored(subject, tmp_path)
    weights = dict(subject.causal.named_parameters())
    assert len(tensors) == len(weights) and ("output.weight" in tensors) != tied
    assert facts["llama.attention.head_count_kv"] == 2 and facts["llama.rope.dimension_count"] == 32
    assert facts["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(subject.causal.config.rms_norm_eps)
    assert facts["tokenizer.ggml.model"] == "no_vocab" and facts["llama.vocab_size"] == 301
    for theirs, ours in (
        ("attn_v", "self_attn.v_proj"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_norm", "post_attention_layernorm"),
    ):
        assert torch.equal(tensors[f"blk.1.{theirs}.weight"], weights[f"model.layers.1.{ours}.weight"])
    for theirs, ours, heads in (("attn_q", "self_attn.q_proj", 4), ("attn_k", "self_attn.k_proj", 2)):
        mine = weights[f"model.layers.1.{ours}.weight"].view(heads, 32, 128)
        turned = tensors[f"blk.1.{theirs}.weight"].view(heads, 32, 128)
        for pair in range(16):  # the two that a position turns together are neighbours there, half a head apart here
            assert torch.equal(turned[:, 2 * pair], mine[:, pair])
            assert torch.equal(turned[:, 2 * pair + 1], mine[:, 16 + pair])


def test_a_file_of_gpt_neox_has_its_weights(tmp_path: Path) -> None:
    subject = model("pythia")
    torch.nn.init.normal_(subject.causal.gpt_neox.layers[1].attention.query_key_value.bias)
    facts, tensors, _ = stored(subject, tmp_path)
    weights = dict(subject.causal.named_parameters())
    assert len(tensors) == len(weights)
    assert facts["gptneox.rope.dimension_count"] == 8 and facts["gptneox.use_parallel_residual"] is True
    for end in ("weight", "bias"):
        mine = weights[f"gpt_neox.layers.1.attention.query_key_value.{end}"].view(4, 3, 32, -1)
        theirs = tensors[f"blk.1.attn_qkv.{end}"].view(3, 4, 32, -1)
        assert all(torch.equal(theirs[part, head], mine[head, part]) for part in range(3) for head in range(4))
        assert torch.equal(tensors[f"blk.0.ffn_up.{end}"], weights[f"gpt_neox.layers.0.mlp.dense_h_to_4h.{end}"])


def test_a_file_of_rwkv7_has_its_weights(tmp_path: Path) -> None:
    subject = model("rwkv7")
    facts, tensors, _ = stored(subject, tmp_path)
    weights = subject.tensors()
    assert facts["rwkv7.attention.iclr_lora_rank"] == 16 and facts["rwkv7.attention.value_residual_mix_lora_rank"] == 8
    assert torch.equal(tensors["blk.1.time_mix_v2.weight"], weights["blocks.1.att.v2"].T)
    assert [tensors[f"blk.0.time_mix_v{i}.weight"].shape for i in range(3)] == [(128,), (16, 128), (128, 16)]
    fused = tensors["blk.1.time_mix_lerp_fused.weight"]
    assert fused.shape == (6, 1, 1, 128)
    for i, letter in enumerate("rwkvag"):
        assert torch.equal(fused[i], weights[f"blocks.1.att.x_{letter}"])
    assert torch.equal(tensors["token_embd_norm.bias"], weights["blocks.0.ln0.bias"])
    assert torch.equal(tensors["blk.1.time_mix_r_k.weight"], weights["blocks.1.att.r_k"].flatten())


def test_a_file_of_rwkv6_has_its_weights(tmp_path: Path) -> None:
    subject = model("rwkv6")
    facts, tensors, _ = stored(subject, tmp_path)
    weights = subject.tensors()
    assert facts["rwkv6.time_mix_extra_dim"] == 12 and facts["rwkv6.rescale_every_n_layers"] == 0
    assert torch.equal(tensors["blk.1.time_mix_w1.weight"], weights["blocks.1.att.time_maa_w1"].T)
    assert torch.equal(tensors["blk.1.time_mix_w2.weight"], weights["blocks.1.att.time_maa_w2"].mT)
    assert torch.equal(tensors["blk.1.time_mix_lerp_fused.weight"][3], weights["blocks.1.att.time_maa_r"])
    assert torch.equal(tensors["blk.0.channel_mix_receptance.weight"], weights["blocks.0.ffn.receptance.weight"])


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
@pytest.mark.parametrize("family", [*RWKV, *TRANSFORMERS])
def test_matrices_are_quantised_and_nothing_else(tmp_path: Path, family: str, kind: str) -> None:
    subject = model(family)
    _, full, _ = stored(subject, tmp_path)
    _, tensors, kinds = stored(subject, tmp_path, kind)
    for name, values in full.items():
        low_rank = family in RWKV and values.dim() == 2 and min(values.shape) < 64
        quantised = values.dim() == 2 and not low_rank and name != "blk.0.time_mix_v0.weight"
        assert kinds[name] == (kind if quantised else "F32"), name
        steps = {"Q8_0": 127, "Q4_0": 8}[kind] if quantised else math.inf
        widest = values.abs().amax() if quantised else values.new_tensor(1.0)
        assert (tensors[name] - values).abs().max() <= 1.01 * widest / steps, name  # a step of the largest block


def test_what_llama_cpp_would_compute_otherwise_is_not_written(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    scaled = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    for subject in (model("llama", rope_parameters=scaled), model("pythia", hidden_act="relu")):
        with pytest.raises(Unsupported, match="are not written for"):
            gguf_files.write(subject, tmp_path / "no", "F32")
    subject = model("llama")
    subject.causal.model.register_parameter("more", torch.nn.Parameter(torch.ones(1)))
    with pytest.raises(Unsupported, match=r"no place for model\.more"):
        gguf_files.write(subject, tmp_path / "no", "F32")
    subject = model("rwkv7")
    for block in subject.blocks:
        block.att.ln_x.eps = 1e-5
    with pytest.raises(Unsupported, match="one epsilon"):
        gguf_files.write(subject, tmp_path / "no", "F32")


@pytest.mark.skipif(not HERE, reason="llama-cpp-python is not installed")
@pytest.mark.parametrize(
    ("family", "shape"),
    [
        ("rwkv6", {}),
        ("rwkv7", {}),
        ("pythia", {}),
        ("pythia", {"use_parallel_residual": False, "rotary_pct": 1.0}),
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True, "attention_bias": True, "num_key_value_heads": 4}),
    ],
)
def test_llama_cpp_agrees(family: str, shape: dict[str, Any]) -> None:
    subject = model(family, **shape)
    for name, p in subject.named_parameters():
        if name.endswith("_proj.bias"):
            torch.nn.init.normal_(p)
    ids = torch.randint(subject.spec.vocab_size, (33,), generator=torch.Generator().manual_seed(0))
    exact = whole(subject, ids)
    engine = llama_cpp.Engine(subject, "F32", 40, 1)
    each, bound = engine.each(ids.tolist()), BOUND.get(family, 1e-5)
    assert (each - exact).abs().max() <= bound * exact.abs().max()
    prompt = engine.prompt(ids.tolist())
    for _ in range(3):  # the same again, whatever came between
        assert (prompt() - exact[-1]).abs().max() <= bound * exact[-1].abs().max()
    token = engine.token(ids.tolist())
    for _ in range(3 if family in TRANSFORMERS else 1):  # a recurrent state goes on
        assert (token() - exact[-1]).abs().max() <= bound * exact[-1].abs().max()


@pytest.mark.skipif(not HERE, reason="llama-cpp-python is not installed")
def test_a_long_prompt_is_read_in_parts() -> None:
    subject = model("llama")
    engine = llama_cpp.Engine(subject, "F32", 40, 1)
    engine._most = 7
    ids = torch.arange(33)
    exact = whole(subject, ids)
    assert (engine.prompt(ids.tolist())() - exact[-1]).abs().max() <= 1e-5 * exact[-1].abs().max()


@pytest.mark.skipif(not HERE, reason="llama-cpp-python is not installed")
@pytest.mark.parametrize("family", [*RWKV, *TRANSFORMERS])
def test_quantised_weights_in_llama_cpp_are_near(family: str) -> None:
    metrics, _ = peers.run(model(family), device="cpu", rounds=3)
    distances = metrics["distances"]
    assert distances.keys() == {"llama.cpp Q8_0", "llama.cpp Q4_0", torch_int8.NAME}
    assert 0 < 5 * distances["llama.cpp Q8_0"]["largest"] < distances["llama.cpp Q4_0"]["largest"] < 0.5
    assert 0 < 5 * distances["llama.cpp Q8_0"]["kl"] < distances["llama.cpp Q4_0"]["kl"]
    assert distances["llama.cpp Q8_0"]["same_first"] > distances["llama.cpp Q4_0"]["same_first"]
    assert metrics["errors"]["llama.cpp F32"] <= BOUND.get(family, 1e-5)
    assert "CPU : " in metrics["implementations"]["llama.cpp F32"]  # and what it was compiled for


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("family", [*RWKV, *TRANSFORMERS])
@pytest.mark.parametrize("task", ["token", "prompt"])
def test_llama_cpp_races(monkeypatch: pytest.MonkeyPatch, family: str, task: Any) -> None:
    monkeypatch.setattr(products, "FEWEST", 1)
    metrics, samples = peers.run(model(family), device="cpu", task=task, tokens=1 if task == "token" else 9, rounds=3)
    names = {"ours", *(f"llama.cpp {kind}" for kind in gguf_files.KINDS)}
    names |= {torch_int8.NAME} if task == "token" else set()
    names |= {"pip rwkv"} if family in RWKV and pip_rwkv.installed() else set()
    assert metrics["errors"].keys() == names and metrics["left_out"].keys() <= {"pip rwkv"}
    in_c = {"gemv in C"} if products.LIBRARY.lacks(torch.device("cpu"), torch.float32) is None else set()
    assert samples["seconds"].keys() - names == ({"gemv", *in_c} if task == "token" else {"gemm"})
    assert metrics["implementations"].keys() == samples["seconds"].keys()
    if family in TRANSFORMERS:
        assert "sdpa" in metrics["implementations"]["ours"] and "preallocated" in metrics["implementations"]["ours"]


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("family", "off", "fails"), [("llama", 0.01, True), ("pythia", 3e-4, False), ("rwkv7", 0.1, True)]
)
def test_only_quantised_weights_may_be_far(
    monkeypatch: pytest.MonkeyPatch, family: str, off: float, fails: bool
) -> None:
    subject = model(family)
    monkeypatch.setattr(Fake, "off", {"Q8_0": 9.0, "Q4_0": 9.0})
    metrics, _ = peers.run(subject, device="cpu", task="prompt", tokens=9, rounds=3)
    assert metrics["errors"]["llama.cpp Q4_0"] > 1 and metrics["distances"]["llama.cpp Q4_0"]["largest"] > 1
    monkeypatch.setattr(Fake, "off", {"F32": off})
    if fails:
        with pytest.raises(RuntimeError, match="F32 and our results"):
            peers.run(subject, device="cpu", task="prompt", tokens=9, rounds=3)
    else:  # the tanh form of its GELU
        assert peers.run(subject, device="cpu", task="prompt", tokens=9, rounds=3)[0]["errors"]["llama.cpp F32"] > 1e-4
    monkeypatch.setattr(Fake, "off", {"Q8_0": math.nan})
    with pytest.raises(RuntimeError, match="Q8_0 and our results"):
        peers.run(subject, device="cpu", task="prompt", tokens=9, rounds=3)


@pytest.mark.usefixtures("fake")
def test_what_is_not_raced_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = model("rwkv7")
    assert peers.run(subject, device="cpu", batch=2, rounds=3)[0]["left_out"][llama_cpp.NAME] == llama_cpp.ONE_BY_ONE
    for block in subject.blocks:
        block.att.ln_x.eps = 1e-5
    monkeypatch.setattr(pip_rwkv, "installed", lambda: False)  # it has one epsilon too, and does not say so
    monkeypatch.setattr(torch_int8, "lacks", lambda: "no engine")
    left_out = peers.run(subject, device="cpu", rounds=3)[0]["left_out"]
    assert "one epsilon" in left_out[llama_cpp.NAME] and left_out[torch_int8.NAME] == "no engine"
    monkeypatch.setattr(llama_cpp, "installed", lambda: False)
    metrics, samples = peers.run(subject, device="cpu", task="prompt", tokens=3, rounds=3)
    assert metrics["left_out"].keys() == {llama_cpp.NAME, "pip rwkv"}
    assert all("not installed" in why for why in metrics["left_out"].values())
    assert metrics["errors"].keys() == {"ours"} and samples["seconds"].keys() == {"ours", "gemm"}
    half = small("llama", "bfloat16")
    assert peers.run(half, device="cpu", rounds=3)[0]["left_out"][torch_int8.NAME] == "raced in float32 on a CPU alone"


@pytest.mark.parametrize(
    ("family", "shape"),
    [("rwkv6", {}), ("rwkv7", {}), ("pythia", {}), ("llama", {}), ("llama", {"tie_word_embeddings": True})],
)
def test_the_products_are_of_every_matrix_once(family: str, shape: dict[str, Any]) -> None:
    subject = model(family, **shape)
    looked_up = 0 if shape else subject.spec.vocab_size * subject.spec.width
    read = [p for name, p in subject.named_parameters() if p.squeeze().dim() > 1 and not name.endswith(peers.TABLES)]
    multiplied = [*peers._matrices(subject), peers._head(subject)]
    assert sum(p.numel() for p in multiplied) == sum(p.numel() for p in read) - looked_up


def test_what_nobody_else_computes_is_unsupported() -> None:
    for family in ("opt", "mamba"):
        with pytest.raises(Unsupported, match="no other implementations of it"):
            peers.run(small(family), device="cpu")
    with pytest.raises(Unsupported, match="its training"):
        peers.run(small("llama"), device="cpu", task="train", tokens=8)
    with pytest.raises(BadInput, match="`context` is what a token follows"):
        peers.run(small("llama"), device="cpu", task="prompt", tokens=8, context=17)


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("family", ["rwkv4", "rwkv7", "pythia"])
def test_a_token_follows_as_many_as_are_asked_for(monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    read: list[int] = []
    right = Fake.each
    monkeypatch.setattr(Fake, "each", lambda self, tokens: [read.append(len(tokens)), right(self, tokens)][1])
    subject = parity.make("tiny") if family == "rwkv4" else model(family)
    metrics, _ = peers.run(subject, device="cpu", context=41, rounds=3)
    exact = {name: error for name, error in metrics["errors"].items() if name not in metrics["distances"]}
    assert all(error < 1e-5 for error in exact.values())
    assert set(read) <= {42, peer.POSITIONS} and (42 in read) == (family != "rwkv4")


@pytest.mark.parametrize("cache", ["preallocated", "dynamic"])
def test_every_call_of_a_cache_is_the_same_work(cache: str) -> None:
    spec = ModelSpec("llama", "llama", SMALL["llama"], weights="random:1", cache=cache)
    subject = load(spec)
    ids = torch.randint(128, (1, 12), generator=torch.Generator().manual_seed(0))
    exact = whole(subject, ids[0])[-1]
    with torch.inference_mode():
        step = peers._next(subject, ids)
        assert all((step() - exact).abs().max() < 1e-5 for _ in range(3))


@pytest.mark.parametrize("family", ["rwkv4", "rwkv5", *RWKV, *TRANSFORMERS])
def test_linear_layers_are_quantised_by_torch(family: str) -> None:
    subject = parity.make("tiny", version=family) if family.startswith("rwkv") else model(family)
    before = subject.fingerprint()
    twin = torch_int8.quantised(subject)
    count = sum(isinstance(module, torch.nn.Linear) for module in subject.modules())
    calls: list[int] = []
    for module in twin.modules():
        if isinstance(module, torch.ao.nn.quantized.dynamic.Linear):
            assert module.weight._layer is module
            module.register_forward_hook(lambda *_: calls.append(1))
    ids = torch.randint(subject.spec.vocab_size, (20,), generator=torch.Generator().manual_seed(0))
    moved = peer.distance(whole(subject, ids), whole(twin, ids))
    assert len(calls) == count and subject.fingerprint() == before
    assert 1e-3 < moved["largest"] < 0.15 and 0 < moved["kl"] < 0.1


def test_the_distance_of_logits() -> None:
    ours = torch.tensor([[0.0, 2.0], [4.0, 0.0]])
    assert peer.distance(ours, ours) == {"largest": 0.0, "kl": 0.0, "same_first": 1.0}
    moved = peer.distance(ours, torch.tensor([[1.0, 0.0], [4.0, 0.0]]))
    assert moved["largest"] == 0.5 and moved["same_first"] == 0.5
    p, q = torch.softmax(ours[0].double(), 0), torch.softmax(torch.tensor([1.0, 0.0]).double(), 0)
    assert moved["kl"] == pytest.approx(float((p * (p / q).log()).sum()) / 2)


def test_the_view_names_what_is_quantised_and_what_is_not_raced() -> None:
    seconds = {"ours": [1.0] * 3, "llama.cpp F32": [0.9] * 3, "llama.cpp Q8_0": [0.4] * 3}
    record = raced(seconds, "peers", model="pythia-160m", task="token", tokens=1, context=2048)
    record.metrics["errors"] = {"ours": 0.0, "llama.cpp F32": 2e-3, "llama.cpp Q8_0": 2e-2}
    record.metrics["distances"] = {"llama.cpp Q8_0": {"largest": 3e-2, "kl": 4e-4, "same_first": 0.953125}}
    record.metrics["left_out"] = {"pip rwkv": "not installed"}
    record.metrics["implementations"] = {"ours": "transformers 5"}
    (view,) = races.views(read([record]))
    lines = view.tables[0].frame.set_index("contender")
    assert list(lines.index) == ["transformers as here", "llama.cpp F32", "llama.cpp, weights quantised to 8 bits"]
    assert list(lines.KL) == ["-", "-", "4e-04"] and list(lines["same first token"]) == ["-", "-", "95.3"]
    assert set(lines.what) == {"token after 2,048"}
    assert "Not raced: pip rwkv (not installed)." in view.tables[0].note
    assert any("another arithmetic on purpose" in text for text in view.text)
    assert view.tables[1].frame.contender.tolist() == ["transformers as here"]
