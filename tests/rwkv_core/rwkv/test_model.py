"""RWKV's one forward: sequences, chunks, tokens, ragged batches; its state and its arithmetic."""

import dataclasses

import pytest
import torch

from reports.published import paper
from rwkv_core import models
from rwkv_core.architectures import ARCHITECTURES
from rwkv_core.rwkv import init, v4
from rwkv_core.rwkv.model import RWKV
from rwkv_core.spec import ModelSpec
from rwkv_core.wkv import OPERATORS
from rwkv_core.wkv.operator import KERNELS
from rwkv_core.wkv.wkv7 import WKV7
from tests.checks import parity
from tests.rwkv_core import trees


@pytest.mark.parametrize("version", parity.SHAPES)
@torch.inference_mode()
def test_a_ragged_batch_agrees_with_its_rows_alone(version: str) -> None:
    model = parity.make("small", version=version)
    lengths = torch.tensor([40, 1, 17, 33])
    tokens = torch.randint(model.spec.vocab_size, (4, 40), generator=torch.Generator().manual_seed(0))
    hidden, state = model.hidden(tokens, lengths=lengths)
    more, _ = model.hidden(tokens[:, :5], state)
    for row, length in enumerate(lengths.tolist()):
        alone, end = model.hidden(tokens[row : row + 1, :length])
        next_alone, _ = model.hidden(tokens[row : row + 1, :5], end)
        torch.testing.assert_close(hidden[row, :length], alone[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(more[row], next_alone[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("version", parity.SHAPES)
@torch.inference_mode()
def test_a_row_without_tokens_keeps_its_state(version: str) -> None:
    model = parity.make("tiny", version=version)
    _, before = model.hidden(torch.tensor([[1, 2], [3, 4]]))
    _, after = model.hidden(torch.tensor([[5, 6], [7, 8]]), before, torch.tensor([0, 2]))
    for old, new in zip(before, after, strict=True):
        assert all(torch.equal(a[0], b[0]) for a, b in zip(old, new, strict=True))
        assert not any(torch.equal(a[1], b[1]) for a, b in list(zip(old, new, strict=True))[:2])


@pytest.mark.parametrize("version", parity.SHAPES)
@torch.inference_mode()
def test_the_state_is_not_changed_by_its_use(version: str) -> None:
    model = parity.make("tiny", version=version)
    _, state = model.hidden(torch.tensor([[1, 2, 3]]))
    first, _ = model.hidden(torch.tensor([[4]]), state)
    second, _ = model.hidden(torch.tensor([[4]]), state)
    assert torch.equal(first, second)


@pytest.mark.parametrize("version", parity.SHAPES)
@pytest.mark.parametrize("dtype,itemsize", [("float32", 4), ("bfloat16", 2)])
def test_state_bytes_are_those_of_the_formula(dtype: str, itemsize: int, version: str) -> None:
    model = parity.make("tiny", version=version).to(getattr(torch, dtype))
    for tokens in (1, 50):
        _, state = model.hidden(torch.zeros(3, tokens, dtype=torch.long))
        assert model.state_bytes(state) == model.spec.state_bytes(tokens, itemsize, batch=3)


@pytest.mark.parametrize("version", ["rwkv4", "rwkv5", "rwkv6"])
@torch.inference_mode()
def test_rescaling_changes_nothing_but_the_range(version: str) -> None:
    model = parity.make("small", version=version)
    tokens = torch.randint(model.spec.vocab_size, (1, 20), generator=torch.Generator().manual_seed(0))
    before = model(tokens)
    model.rescale(2)
    torch.testing.assert_close(model(tokens), before, rtol=1e-3, atol=1e-3)
    plain = parity.make("small", version=version).state_dict()
    assert all(torch.equal(tensor, plain[name]) for name, tensor in model.tensors().items())


@pytest.mark.parametrize("row", paper.table("architectures").to_dict("records"), ids=lambda row: row["name"])
def test_parameters_and_flops_are_those_of_table_2(row: dict[str, str]) -> None:
    layers, width = int(row["layers"]), int(row["d_model"])
    formulas = ARCHITECTURES["rwkv"]
    assert formulas.parameters and formulas.flops
    spec = next(
        s for s in models.catalogue().values() if s.family == "rwkv4" and (s.layers, s.width) == (layers, width)
    )
    model = RWKV.of(spec)
    counted = sum(p.numel() for p in model.parameters())
    assert counted == spec.parameters == formulas.parameters(spec.architecture)
    assert f"{counted:.3e}" == f"{float(row['params']):.3e}"
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2 and name != "emb.weight")
    assert 2 * matrices == formulas.flops(spec.architecture)
    assert abs(2 * matrices / float(row["flops_per_token"]) - 1) < 5e-4  # printed with four digits


def test_the_papers_initialisation() -> None:
    model = parity.make("small")
    init.fresh(model, seed=3)
    layers = len(model.blocks)
    for i, block in enumerate(model.blocks):
        width = block.att.time_decay.shape[0]
        decay = block.att.time_decay.tolist()
        assert decay[0] == -5 and decay[-1] == pytest.approx(3)
        middle = -5 + 8 * (80 / (width - 1)) ** (0.7 + 1.3 * i / (layers - 1))
        assert decay[80] == pytest.approx(middle, rel=1e-5)
        assert len(block.att.time_first.unique()) == 3
        assert not block.att.receptance.weight.any() and not block.ffn.value.weight.any()
        assert torch.allclose(block.att.value.weight @ block.att.value.weight.T, torch.eye(width), atol=1e-4)
    assert model.emb.weight.abs().max() <= 1e-4
    before = model.blocks[1].att.time_mix_k.clone()
    v4.set_vectors(model.blocks[1], 1, layers)
    assert torch.equal(before, model.blocks[1].att.time_mix_k)
    again = parity.make("small")
    init.fresh(again, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@torch.no_grad()
def test_the_initialisation_of_rwkv5_and_6() -> None:
    """By RWKV-LM's RWKV-v5/src/model.py: x052 and x060."""
    five, six = (parity.make("small", version=version) for version in ("rwkv5", "rwkv6"))
    width, layers = five.spec.width, five.spec.layers
    for model in (five, six):
        init.fresh(model, seed=3)
        for i, block in enumerate(model.blocks):
            decay, bonus = block.att.time_decay.flatten(), block.att.time_faaaa.flatten()
            assert (float(decay[0]), float(decay[-1])) == (-6, pytest.approx(-1))
            assert float(decay[50]) == pytest.approx(-6 + 5 * (50 / (width - 1)) ** (0.7 + 1.3 * i / (layers - 1)))
            first, second = i / (layers - 1), i / (layers - 1) * (1 - 1 / (width - 1)) + 0.1
            assert [float(x) for x in bonus[:2]] == pytest.approx([first, second], abs=1e-6)
            assert torch.allclose(block.att.ln_x.weight, torch.tensor(((1 + i) / layers) ** 0.7))
            receptance, key, gate = (getattr(block.att, n).weight for n in ("receptance", "key", "gate"))
            eye = torch.eye(width)
            assert torch.allclose(receptance @ receptance.T, eye, atol=1e-4)
            assert all(torch.allclose(w @ w.T, 0.01 * eye, atol=1e-4) for w in (key, gate))
            tall = block.ffn.key.weight
            assert torch.allclose(tall.T @ tall, len(tall) / width * eye, atol=1e-3)
            assert not any(w.weight.any() for w in (block.att.output, block.ffn.value, block.ffn.receptance))
    old, new = five.blocks[2], six.blocks[2]
    for letter in "kvrg":
        shares = getattr(old.att, f"time_mix_{letter}") + getattr(new.att, f"time_maa_{letter}")
        assert torch.allclose(shares, torch.ones(()))
    below = 0.25  # channel 48 of 192
    assert float(new.ffn.time_maa_k[..., 48]) == pytest.approx(1 - below ** ((1 - 2 / layers) ** 3))
    assert float(old.ffn.time_mix_k[..., 48]) == pytest.approx(below ** (1 - 2 / layers))
    assert float(new.att.time_maa_x[..., 48]) == pytest.approx(1 - below ** (1 - 2 / layers))
    assert not new.att.time_maa_w1.any() and not new.att.time_decay_w1.any()
    assert 0.009 < float(new.att.time_maa_w2.abs().max()) <= 0.01


@torch.no_grad()
def test_the_initialisation_of_rwkv7() -> None:
    """By RWKV-LM's RWKV-v7/train_temp/src/model.py."""
    model = parity.make("small", version="rwkv7")
    init.fresh(model, seed=3)
    layers, width = model.spec.layers, model.spec.width
    for i, block in enumerate(model.blocks):
        att = block.att
        ends = [float(getattr(att, name).flatten()[n]) for name in ("w0", "a0") for n in (0, -1)]
        assert ends == pytest.approx([-8, 3, -0.69, 0.31])  # where lin is -1/2 and 1/2, zigzag -1 and 1
        middle = -6 + 6 * (64 / (width - 1)) ** (1 + (i / (layers - 1)) ** 0.3) + 0.5 - 2.5  # a head's first channel
        assert float(att.w0.flatten()[64]) == pytest.approx(middle, rel=1e-5)
        assert float(att.k_k.flatten()[0]) == pytest.approx(0.76) and float(att.k_k.flatten()[-1]) == pytest.approx(
            0.66
        )
        assert bool((att.k_a == 1.02).all()) and bool((att.r_k == -0.04).all())
        assert hasattr(att, "v0") == (i > 0)
        for name in "wavg" if i else "wag":
            first, second = getattr(att, f"{name}1"), getattr(att, f"{name}2")
            assert not first.any() and torch.allclose(second @ second.T, 0.01 * torch.eye(len(second)), atol=1e-4)
        shares = {"r": 0.2, "g": 0.2, "w": 0.9, "a": 0.9, "k": 0.7, "v": 0.7}
        for letter, power in shares.items():
            share = float(getattr(att, f"x_{letter}")[..., 48])
            assert share == pytest.approx(1 - 0.25 ** (power * (1 - i / layers)), rel=1e-5)
        assert float(block.ffn.x_k[..., 48]) == pytest.approx(1 - 0.25 ** ((1 - i / layers) ** 4), rel=1e-5)
    assert float(model.blocks[1].att.v0.flatten()[0]) == pytest.approx(0.93)


@pytest.mark.parametrize("version", parity.SHAPES)
def test_one_layer_can_be_initialised(version: str) -> None:
    shape = {**parity.make("tiny", version=version).spec.architecture, "num_hidden_layers": 1}
    model = RWKV.of(ModelSpec("one", "rwkv", shape)).to_empty(device="cpu")
    init.fresh(model, seed=0)
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    assert bool(model(torch.tensor([[1, 2, 3]])).isfinite().all())


@pytest.mark.parametrize("version", parity.SHAPES)
def test_it_learns(version: str) -> None:
    model = parity.make("tiny", version=version)
    init.fresh(model, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    tokens = torch.arange(24).repeat(4, 3)
    losses = []
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize("version", parity.SHAPES)
def test_a_step_under_autocast_is_the_step(version: str) -> None:
    model = parity.make("tiny", version=version)
    tokens = torch.randint(model.spec.vocab_size, (2, 20), generator=torch.Generator().manual_seed(0))
    gradients = []
    for half in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = torch.nn.functional.cross_entropy(
                model(tokens[:, :-1]).float().flatten(0, 1), tokens[:, 1:].flatten()
            )
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert len(gradients[0]) == sum(p.numel() for p in model.parameters())
    assert torch.cosine_similarity(*gradients, dim=0) > 0.995


@pytest.mark.parametrize("version", ["rwkv5", "rwkv6", "rwkv7"])
def test_every_implementation_trains_along_the_same_curve(version: str) -> None:
    """Twenty steps over chunks, pieces and spans of every kernel."""
    shape = {**parity.make("tiny", version=version).spec.architecture, "num_hidden_layers": 2}
    tokens = torch.randint(96, (2, 71), generator=torch.Generator().manual_seed(0))
    curves = {}
    for impl, implementation in OPERATORS["wkv7" if version == "rwkv7" else "wkv6"].implementations.items():
        if impl == "triton" or implementation.lacks(torch.device("cpu"), torch.float32):
            continue  # forward alone
        model = RWKV.of(ModelSpec("small", version, shape), impl=impl).to_empty(device="cpu")
        init.random(model, seed=0, std=0.05)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        curves[impl] = []
        for _ in range(20):
            loss = torch.nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curves[impl].append(loss.item())
    assert {"reference", "torch"} <= curves.keys() and curves["torch"][-1] < 0.9 * curves["torch"][0]
    for impl, curve in curves.items():
        assert curve == pytest.approx(curves["reference"], rel=1e-5), impl


def test_what_computes_in_training_is_said_where_it_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    model = parity.make("tiny", version="rwkv7")
    assert ", in training" not in model.attention
    monkeypatch.setitem(KERNELS, "cpu", "triton")
    triton = dataclasses.replace(WKV7.implementations["triton"], lacks=lambda device, dtype: None)
    monkeypatch.setitem(WKV7.implementations, "triton", triton)  # type: ignore[misc]
    WKV7.choose.cache_clear()
    assert model.attention == "wkv7:triton, in training torch"
    WKV7.choose.cache_clear()


@pytest.mark.parametrize("forest", trees.FORESTS)
@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, "small"), (torch.float64, "tiny")])
@pytest.mark.parametrize("version", ["rwkv4", "rwkv5", "rwkv6", "rwkv7"])
def test_trees_are_read_as_their_texts_alone(version: str, dtype: torch.dtype, size: str, forest: str) -> None:
    """In float64 by torch, in float32 in C where it is compiled."""
    trees.check(parity.make(size, version=version).to(dtype), trees.FORESTS[forest])


def test_trees_are_read_on_a_cpu_alone() -> None:
    assert parity.make("tiny").to("meta").read is None
