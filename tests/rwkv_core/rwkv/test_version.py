"""A version of RWKV is its module, a line of VERSIONS and a row of the architectures; nothing else knows it."""

from __future__ import annotations

import types
from pathlib import Path

import pytest
import torch

from rwkv_core import architectures
from rwkv_core.errors import BadInput
from rwkv_core.load import load
from rwkv_core.rwkv import checkpoint, v4, version
from rwkv_core.rwkv.model import RWKV
from rwkv_core.spec import ModelSpec
from rwkv_core.wkv.wkv4 import WKV4

SHAPE = {"model_type": "toy", "vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 3}
TOKENS = torch.tensor([[5, 1, 7, 7, 2], [1, 1, 2, 3, 5]])


class Block(v4.Block):
    """RWKV-4's, with a scale of its own by which checkpoints are known."""

    def __init__(self, shape: dict[str, int], layer: int) -> None:
        super().__init__(shape, layer)
        self.toy_scale = torch.nn.Parameter(torch.empty(shape["hidden_size"]))

    def forward(self, x: torch.Tensor, *rest: object) -> tuple[torch.Tensor, v4.LayerState, object]:
        x, state, shared = super().forward(x, *rest)  # type: ignore[arg-type]
        return x * self.toy_scale, state, shared


def _initialise(block: Block, layer: int, layers: int, generator: torch.Generator) -> None:
    v4.initialise(block, layer, layers, generator)
    with torch.no_grad():
        block.toy_scale.fill_(0.5)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """A module of a version, its line and its row."""
    names = ("FLOAT32", "RESCALE_EVERY", "begin", "empty", "published", "set_vectors")
    module = types.SimpleNamespace(
        **{name: getattr(v4, name) for name in names},
        **{"NAME": "RWKV-toy", "FAMILY": "rwkv-toy", "MODEL_TYPE": "toy", "MARK": r"\.toy_scale$", "OPERATOR": WKV4},
        **{"Block": Block, "initialise": _initialise},
        sizes=lambda tensors, config: {**v4.sizes(tensors, config), "model_type": "toy"},
    )
    monkeypatch.setattr(version, "VERSIONS", (module, v4))
    monkeypatch.setattr(checkpoint, "VERSIONS", (module, v4))
    monkeypatch.setitem(architectures.ARCHITECTURES, "toy", architectures.ARCHITECTURES["rwkv"])
    return module


@torch.inference_mode()
def test_a_new_version_is_built_run_saved_and_read(toy: types.SimpleNamespace, tmp_path: Path) -> None:
    model = load(ModelSpec("small", "rwkv-toy", SHAPE, weights="fresh:1"))
    assert isinstance(model, RWKV) and float(model.blocks[2].toy_scale[0]) == 0.5
    assert model.attention.startswith("wkv4:") and model.spec.recurrent
    torch.manual_seed(0)
    for block in model.blocks:  # zero at the beginning, and the layers without effect
        torch.nn.init.normal_(block.att.output.weight, std=0.3)
    whole = model(TOKENS)
    hidden, state = model.hidden(TOKENS[:, :3])
    rest, state = model.hidden(TOKENS[:, 3:], model.take(state, torch.tensor([0, 1])))
    assert torch.allclose(model.logits(torch.cat([hidden, rest], 1)), whole, atol=1e-5)
    assert model.state_bytes(state) == model.spec.state_bytes(5, batch=2)
    model.save(tmp_path / "saved")
    again = RWKV.from_checkpoint(tmp_path / "saved")
    assert again.spec.family == "rwkv-toy" and torch.allclose(again(TOKENS), whole, atol=0.02, rtol=0.02)


def test_a_checkpoint_of_a_version_that_is_not_here_is_one_line(toy: types.SimpleNamespace, tmp_path: Path) -> None:
    model = load(ModelSpec("small", "rwkv-toy", SHAPE, weights="random:1"))
    assert isinstance(model, RWKV)
    tensors = {name.replace("toy_scale", "ffn.s_emb.weight"): tensor for name, tensor in model.state_dict().items()}
    checkpoint.save_pth(tensors, tmp_path / "m.pth")
    with pytest.raises(BadInput, match=r"of RWKV-7a \(with DeepEmbed\); only RWKV-toy, RWKV-4 can be loaded"):
        RWKV.from_checkpoint(tmp_path / "m.pth")
