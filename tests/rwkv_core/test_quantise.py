"""int8: what is rounded and by how much, that nothing else changes, what is refused; and torchao's part, pretended."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from bench import run
from bench.cells import make
from bench.experiments import EXPERIMENTS
from bench.speed import kernels, peers
from evals.language import corpus
from evals.language.pretrain import check_trainable
from reports.views.inference import rows
from rwkv_core import dtypes, quantise
from rwkv_core.errors import BadInput, Unsupported
from rwkv_core.linear import Int8Embedding, Int8Matrix, Linear, linear, matrix
from rwkv_core.load import load
from rwkv_core.models import find
from rwkv_core.runtimes import transformers_rwkv
from rwkv_core.rwkv import checkpoint
from rwkv_core.spec import ModelSpec
from tests.checks import parity
from tests.rwkv_core.runtimes.test_hf import SMALL

AS_EXACT = 1e-5  # of the largest logit
WINDOW, WINDOWS = 256, 16  # tokens of the pocket world's held-out text
LEAD = 0.1  # nats by which the likeliest token is ahead of the next, where it is no toss-up
LOST = 1e-4  # nats a token, Kullback-Leibler


@pytest.fixture
def however_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dtypes, "FEWEST", 1)


def spec_of(family: str, folder: Path) -> ModelSpec:
    """A small model of a family that `load` can be asked for."""
    if family in SMALL:
        return ModelSpec(family, family, SMALL[family], weights="random:1")
    model = parity.make("tiny", version=family)
    checkpoint.save_pth(model.tensors(), folder / "model.pth")
    return ModelSpec(family, model.spec.family, model.spec.architecture, weights=str(folder / "model.pth"))


def matrices(model: Any) -> dict[str, Int8Matrix]:
    """By the names that their weights had, tied ones by all of these."""
    return {name: m for name, m in model.named_modules(remove_duplicate=False) if isinstance(m, Int8Matrix)}


@pytest.mark.parametrize("shape", [(1, 1), (5, 1), (3, 7), (129, 31), (2, 1000)], ids=str)
def test_each_number_is_off_by_half_a_step_at_most(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]) -> None:
    monkeypatch.setattr(matrix, "PART", 100)
    weight = (
        torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 10 ** torch.linspace(-9, 9, shape[0])[:, None]
    )
    rounded = Int8Matrix(weight)
    step = weight.abs().amax(1, keepdim=True).double() / 127
    assert ((rounded.exact().double() - weight).abs() <= 0.50001 * step).all()
    assert rounded.numbers.dtype == torch.int8 and rounded.numbers.abs().max() == 127
    assert torch.allclose(rounded.scales.double(), step[:, 0])


def test_a_row_of_zeros_or_of_almost_nothing_stays_finite() -> None:
    weight = torch.zeros(3, 4)
    weight[1] = 1e-42
    weight[2] = 3e38
    rounded = Int8Matrix(weight)
    assert rounded.exact()[0].eq(0).all() and rounded.exact().isfinite().all()
    assert torch.allclose(rounded.exact(), weight)


def test_a_matrix_in_the_place_of_a_weight() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(9, 5, generator=generator), torch.randn(2, 5, generator=generator)
    rounded = Int8Matrix(weight)
    assert rounded.rows(torch.tensor([[3], [3]])).equal(rounded.exact()[[3, 3]][:, None])
    with pytest.raises(IndexError):
        rounded.rows(torch.tensor([9]))
    for wrong in (x[:, :4], x.double()):
        with pytest.raises(RuntimeError):
            linear(wrong, rounded)
    assert linear(x[:0], rounded).shape == (0, 9)
    x.requires_grad_()
    (slope,) = torch.autograd.grad(linear(x, rounded).sum(), [x])
    assert torch.allclose(slope, rounded.exact().sum(0).expand(2, -1))


@torch.inference_mode()
@pytest.mark.parametrize("family", [*parity.SHAPES, *SMALL])
def test_every_family_computes_with_the_rounded_weights_and_changes_nothing_else(
    however_small: None, tmp_path: Path, family: str
) -> None:
    spec = spec_of(family, tmp_path)
    exact: Any = load(spec)
    model: Any = load(spec, dtype="int8")
    rounded = matrices(model)
    assert len(rounded) >= 4 * spec.layers + 2 - (family == "mamba") * 2 * spec.layers
    stored = {p: p.numel() * 4 for p in exact.parameters()}
    for name, one in rounded.items():
        weight = exact.get_parameter(name)
        stored[weight] = weight.numel() + 4 * len(weight)
        weight.copy_(one.exact())
    assert model.parameter_count == exact.parameter_count
    assert model.parameter_bytes == sum(stored.values())
    assert model.itemsize == 4 and model.quantised and not exact.quantised
    assert model.fingerprint() == load(spec, dtype="int8").fingerprint() != exact.fingerprint()
    for name, p in exact.named_parameters():
        assert name in rounded or model.get_parameter(name).equal(p), name

    tokens = torch.randint(spec.vocab_size, (2, 40), generator=torch.Generator().manual_seed(0))
    expected = exact.logits(exact.hidden(tokens)[0])
    bound = AS_EXACT * expected.abs().max()
    assert (model.logits(model.hidden(tokens)[0]) - expected).abs().max() <= bound  # by torch
    state, parts = None, []
    for part in tokens.split([20, *[1] * 20], 1):  # those of one token in C, where it is
        hidden, state = model.hidden(part, state)
        parts.append(model.logits(hidden))
    assert (torch.cat(parts, 1) - expected).abs().max() <= bound
    assert model.state_bytes(state) == spec.state_bytes(40, dtypes.itemsize("int8", "cpu"), batch=2)


def test_a_head_that_is_the_embedding_is_one_matrix(however_small: None, tmp_path: Path) -> None:
    model: Any = load(spec_of("bloom", tmp_path), dtype="int8")
    head, embedding = model.causal.get_output_embeddings(), model.causal.get_input_embeddings()
    assert type(head) is Linear and type(embedding) is Int8Embedding and head.weight is embedding.weight
    apart: Any = load(spec_of("pythia", tmp_path), dtype="int8")
    assert apart.causal.get_output_embeddings().weight is not apart.causal.get_input_embeddings().weight


def test_what_stays_in_float32(however_small: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    goose: Any = load(spec_of("rwkv7", tmp_path), dtype="int8")
    assert all(
        type(p) is nn.Parameter and p.dtype == torch.float32 for p in (goose.blocks[1].att.w1, goose.blocks[1].att.g2)
    )
    mamba: Any = load(spec_of("mamba", tmp_path), dtype="int8")
    assert isinstance(mamba.causal.backbone.layers[0].mixer.dt_proj.weight, nn.Parameter)  # of low rank
    opt: Any = load(spec_of("opt", tmp_path), dtype="int8")
    assert isinstance(opt.causal.model.decoder.embed_positions.weight, nn.Parameter)
    neo: Any = load(spec_of("gpt-neo", tmp_path), dtype="int8")
    assert isinstance(neo.causal.transformer.wpe.weight, Int8Matrix)
    monkeypatch.setattr(dtypes, "FEWEST", 20_000)
    few: Any = load(spec_of("rwkv7", tmp_path), dtype="int8")
    assert set(matrices(few)) == {f"blocks.{i}.ffn.{name}.weight" for i in range(2) for name in ("key", "value")}


def test_a_weight_that_another_kind_of_layer_shares_stays_as_it_is(however_small: None) -> None:
    class Own(nn.Embedding):
        pass

    model = nn.Sequential(Own(8, 8), nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight = model[0].weight
    quantise.quantise(model, 8, "int8", "cpu")
    assert model[1].weight is model[0].weight and isinstance(model[2].weight, Int8Matrix)


def test_each_weight_is_freed_before_the_next_is_rounded(monkeypatch: pytest.MonkeyPatch, however_small: None) -> None:
    model = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(4)))
    left = []

    def watched(weight: Tensor) -> Int8Matrix:
        left.append(sum(isinstance(layer.weight, nn.Parameter) for layer in model))
        return Int8Matrix(weight)

    monkeypatch.setattr(quantise, "Int8Matrix", watched)
    quantise.quantise(model, 8, "int8", "cpu")
    assert left == [4, 3, 2, 1]


@pytest.mark.parametrize("runtime", ["pip_rwkv", "transformers"])
def test_other_runtimes_refuse(runtime: str) -> None:
    with pytest.raises(Unsupported, match=f"`runtime: {runtime}` is measured as others have it.*leave `runtime` out"):
        load(find("rwkv4-169m", weights="random:0", runtime=runtime), dtype="int8")


def test_who_wants_other_weights_refuses(however_small: None, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="int4 is there on CUDA alone"):
        load(find("pythia-14m", weights="random:0"), dtype="int4")
    model: Any = load(spec_of("rwkv4", tmp_path), dtype="int8")
    with pytest.raises(BadInput, match="training wants `dtype: float32`"):
        check_trainable(model)
    for call in (model.tensors, lambda: transformers_rwkv.converted(model), lambda: peers.run(model, device="cpu")):
        with pytest.raises(Unsupported, match="quantised weights; write `dtype: float32`"):
            call()
    with pytest.raises(Unsupported, match="no weights to be in int8; write one of float32, bfloat16"):
        kernels.run(model.spec, device="cpu", dtype="int8")


@torch.inference_mode()
@pytest.mark.parametrize("name", ["pocket-rwkv4", "pocket-pythia", "pocket-opt", "pocket-bloom"])
def test_trained_models_say_the_same(name: str) -> None:
    exact, model = load(name), load(name, dtype="int8")
    encode, end = corpus.codec(exact, "own")
    tokens = corpus.stream("pocket", encode, end, WINDOW * WINDOWS, held_out=True, long=0)
    ids = torch.from_numpy(tokens).long().view(WINDOWS, WINDOW)
    expected, found = (m.logits(m.hidden(ids, keep=False)[0]).double().log_softmax(-1) for m in (exact, model))
    (first, second) = expected.topk(2, -1).values.unbind(-1)
    same = expected.argmax(-1) == found.argmax(-1)
    assert same[first - second > LEAD].all() and same.double().mean() > 0.97
    lost = (expected.exp() * (expected - found)).sum(-1)
    assert 0 < lost.mean() < LOST


def test_a_cell_in_int8_is_measured_and_its_bytes_are_read() -> None:
    spec = find("pythia-14m", weights="random:0")
    params = EXPERIMENTS["inference"].defaults | {"prompt_tokens": 40, "new_tokens": 4}
    (record,) = run.measure([make("inference", spec, "cpu", "int8", params)])
    assert record.status in ("ok", "disturbed") and record.metrics["parameters"] == spec.parameters
    values = {row["metric"]: row["value"] for row in rows(record)}
    table = spec.vocab_size * (spec.width + 4)
    assert values["read_bytes"] == values["parameter_bytes"] - table
    assert values["parameter_bytes"] < 1.2 * spec.parameters
    assert values["state_bytes"] == spec.state_bytes(43)


def test_bytes_of_a_table_that_is_only_looked_up() -> None:
    spec, tied = find("pythia-160m"), find("pocket-bloom")
    numbers = spec.vocab_size * spec.width
    for dtype, size in {"float32": 4, "bfloat16": 2, "float16": 2}.items():
        assert spec.lookup_bytes(dtype, "cpu") == spec.lookup_bytes(dtype, "cuda") == numbers * size
    assert spec.lookup_bytes("int8", "cpu") == numbers + 4 * spec.vocab_size
    assert spec.lookup_bytes("int8", "cuda") == spec.lookup_bytes("int4", "cuda") == 2 * numbers  # torchao leaves it
    assert tied.lookup_bytes("int8", "cpu") == 0
    assert (dtypes.itemsize("int8", "cpu"), dtypes.itemsize("int4", "cuda")) == (4, 2)


class Packed(Tensor):
    """A weight as torchao keeps one: a tensor without numbers of its own, for which operators take others."""

    def __new__(cls, weight: Tensor) -> Packed:
        packed: Packed = Tensor._make_wrapper_subclass(cls, weight.shape, dtype=weight.dtype)
        packed.matrix = Int8Matrix(weight.float())
        packed.numbers, packed.scales = packed.matrix.numbers, packed.matrix.scales
        return packed

    matrix: Int8Matrix
    numbers: Tensor
    scales: Tensor

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["numbers", "scales"], None

    @classmethod
    def __torch_dispatch__(cls, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if call is torch.ops.aten.detach.default:
            return args[0]
        return call(*tree_map_only(cls, lambda one: one.matrix.exact().to(one.dtype), args), **(kwargs or {}))


@pytest.fixture
def torchao(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The configurations that were asked of a torchao that rounds to int8 in any case."""
    asked: list[Any] = []

    def quantize_(model: nn.Module, config: Any, filter_fn: Any) -> None:
        asked.append(config)
        for name, module in model.named_modules():
            if filter_fn(module, name):
                module.weight = nn.Parameter(Packed(module.weight.detach()), requires_grad=False)

    names = {
        name: lambda kind=name, **options: (kind, options) for name in ("Int8WeightOnlyConfig", "Int4WeightOnlyConfig")
    }
    pretended = SimpleNamespace(quantize_=quantize_, **names)
    monkeypatch.setitem(sys.modules, "torchao", SimpleNamespace(quantization=pretended))
    return asked


@torch.inference_mode()
@pytest.mark.parametrize("family", ["rwkv4", "rwkv7", "pythia", "bloom"])
@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_torchao_is_given_the_linear_layers_of_cuda(
    torchao: list[Any], however_small: None, tmp_path: Path, family: str, dtype: str
) -> None:
    spec = spec_of(family, tmp_path)
    exact: Any = load(spec, dtype="bfloat16")
    model: Any = load(spec, dtype="bfloat16")
    quantise.quantise(model, spec.width, dtype, "cuda")
    ((kind, options),) = torchao
    assert kind == f"I{dtype[1:]}WeightOnlyConfig" and options.pop("set_inductor_config") is False
    assert options == ({"int4_packing_format": "tile_packed_to_4d"} if dtype == "int4" else {})
    packed = {name for name, p in model.named_parameters() if isinstance(p, Packed)}
    layers = {f"{name}.weight" for name, layer in exact.named_modules() if isinstance(layer, nn.Linear)}
    assert packed == layers - ({"causal.lm_head.weight"} if family == "bloom" else set())  # its embedding
    assert model.quantised and model.itemsize == 2 and model.parameter_count == exact.parameter_count
    assert model.parameter_bytes < exact.parameter_bytes
    assert model.fingerprint() != exact.fingerprint()
    tokens = torch.randint(spec.vocab_size, (1, 3))
    found, expected = (m.logits(m.hidden(tokens)[0]).float() for m in (model, exact))
    assert (found - expected).abs().max() <= 0.1 * expected.abs().max()


def test_without_torchao_there_is_nothing_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "torchao" else find_spec(name))
    for dtype in dtypes.QUANTISED:
        with pytest.raises(
            Unsupported, match=rf"`dtype: {dtype}` on CUDA needs torchao; `pip install rwkv-bench\[quant"
        ):
            quantise.check(find("pythia-14m"), dtype, "cuda")
