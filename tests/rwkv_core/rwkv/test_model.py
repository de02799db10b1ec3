"""RWKV's one forward: sequences, chunks, tokens, ragged batches; its state and its arithmetic."""

import pytest
import torch

from reports.published import paper
from rwkv_core import models
from rwkv_core.architectures import ARCHITECTURES
from rwkv_core.rwkv import init, v4
from rwkv_core.rwkv.model import RWKV
from tests.checks import parity


@torch.inference_mode()
def test_a_ragged_batch_agrees_with_its_rows_alone() -> None:
    model = parity.make("small")
    lengths = torch.tensor([40, 1, 17, 33])
    tokens = torch.randint(model.spec.vocab_size, (4, 40))
    hidden, state = model.hidden(tokens, lengths=lengths)
    more, _ = model.hidden(tokens[:, :5], state)
    for row, length in enumerate(lengths.tolist()):
        alone, end = model.hidden(tokens[row : row + 1, :length])
        next_alone, _ = model.hidden(tokens[row : row + 1, :5], end)
        torch.testing.assert_close(hidden[row, :length], alone[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(more[row], next_alone[0], rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_a_row_without_tokens_keeps_its_state() -> None:
    model = parity.make("tiny")
    _, before = model.hidden(torch.tensor([[1, 2], [3, 4]]))
    _, after = model.hidden(torch.tensor([[5, 6], [7, 8]]), before, torch.tensor([0, 2]))
    for old, new in zip(before, after, strict=True):
        for a, b in zip(old, new, strict=True):
            assert torch.equal(a[0], b[0])
        assert not torch.equal(old.att_x[1], new.att_x[1]) and not torch.equal(old.a[1], new.a[1])


@torch.inference_mode()
def test_the_state_is_not_changed_by_its_use() -> None:
    model = parity.make("tiny")
    _, state = model.hidden(torch.tensor([[1, 2, 3]]))
    first, _ = model.hidden(torch.tensor([[4]]), state)
    second, _ = model.hidden(torch.tensor([[4]]), state)
    assert torch.equal(first, second)


@pytest.mark.parametrize("dtype,itemsize", [("float32", 4), ("bfloat16", 2)])
def test_state_bytes_are_those_of_the_formula(dtype: str, itemsize: int) -> None:
    model = parity.make("small").to(getattr(torch, dtype))
    for tokens in (1, 50):
        _, state = model.hidden(torch.zeros(3, tokens, dtype=torch.long))
        assert model.state_bytes(state) == model.spec.state_bytes(tokens, itemsize, batch=3)


@torch.inference_mode()
def test_rescaling_changes_nothing_but_the_range() -> None:
    model = parity.make("medium")
    tokens = torch.randint(model.spec.vocab_size, (1, 20), generator=torch.Generator().manual_seed(0))
    before = model(tokens)
    model.rescale(2)
    torch.testing.assert_close(model(tokens), before, rtol=1e-3, atol=1e-3)
    plain = parity.make("medium").state_dict()
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


def test_it_learns() -> None:
    model = parity.make("tiny")
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
