"""Checkpoints in the real formats, whole and broken."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rwkv_core.errors import BadInput
from rwkv_core.rwkv.checkpoint import save_pth
from rwkv_core.rwkv.model import RWKV
from tests.checks import parity

TOKENS = torch.tensor([[5, 1, 7, 7, 2]])


@pytest.fixture(scope="module")
def model() -> RWKV:
    return parity.make("tiny")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_blinkdl_checkpoints_of_every_type(model: RWKV, tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "RWKV-4-tiny.pth"
    save_pth(model.state_dict(), path, getattr(torch, dtype))
    loaded = RWKV.from_checkpoint(path)
    assert (loaded.spec.layers, loaded.spec.width, loaded.spec.vocab_size) == parity.SIZES["tiny"]
    tolerance = 1e-6 if dtype == "float32" else 0.05
    torch.testing.assert_close(loaded(TOKENS), model(TOKENS), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_keeps_decay_and_logits(model: RWKV, tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "m.pth"
    save_pth(model.state_dict(), path)
    loaded = RWKV.from_checkpoint(path, dtype=dtype)
    assert loaded.blocks[0].att.time_decay.dtype == torch.float32
    assert loaded.emb.weight.dtype == getattr(torch, dtype)
    torch.testing.assert_close(loaded(TOKENS).float(), model(TOKENS), rtol=0.1, atol=0.1)


@pytest.mark.parametrize("safe", [True, False])
def test_transformers_folders(model: RWKV, tmp_path: Path, safe: bool) -> None:
    parity.save_transformers(model, tmp_path, safe)
    loaded = RWKV.from_checkpoint(tmp_path)
    torch.testing.assert_close(loaded(TOKENS), model(TOKENS))
    assert loaded.fingerprint() == model.fingerprint()


def test_sharded_folder(model: RWKV, tmp_path: Path) -> None:
    parity.save_transformers(model, tmp_path)
    from safetensors.torch import load_file

    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {}
    for i, part in enumerate((names[::2], names[1::2])):
        save_file({name: tensors[name] for name in part}, tmp_path / f"model-{i}.safetensors")
        weight_map |= dict.fromkeys(part, f"model-{i}.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    torch.testing.assert_close(RWKV.from_checkpoint(tmp_path)(TOKENS), model(TOKENS))
    (tmp_path / "model-1.safetensors").unlink()
    with pytest.raises(BadInput, match=r"names model-1\.safetensors, which is not there"):
        RWKV.from_checkpoint(tmp_path)


def test_a_damaged_file_is_one_line(model: RWKV, tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    save_pth(model.state_dict(), path)
    whole = path.read_bytes()
    safe = tmp_path / "m.safetensors"
    save_file(dict(model.state_dict()), safe)
    whole_safe = safe.read_bytes()
    for kept in (len(whole) // 2, len(whole) - 10, 7):
        path.write_bytes(whole[:kept])
        with pytest.raises(BadInput, match="truncated or damaged"):
            RWKV.from_checkpoint(path)
        safe.write_bytes(whole_safe[: kept // 2])
        with pytest.raises(BadInput, match="truncated or damaged"):
            RWKV.from_checkpoint(safe)
    path.write_text("<html>not here</html>")
    with pytest.raises(BadInput, match="truncated or damaged"):
        RWKV.from_checkpoint(path)
    path.write_bytes(b"")
    with pytest.raises(BadInput, match="empty"):
        RWKV.from_checkpoint(path)
    with pytest.raises(BadInput, match="no such checkpoint"):
        RWKV.from_checkpoint(tmp_path / "absent.pth")
    with pytest.raises(BadInput, match=r"none of model\.safetensors"):
        RWKV.from_checkpoint(tmp_path)


class _Attack:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.target,)  # type: ignore[return-value]


def test_a_pickle_that_wants_to_run_code_does_not(tmp_path: Path) -> None:
    target, path = tmp_path / "ran", tmp_path / "evil.pth"
    torch.save({"emb.weight": _Attack(target)}, path)
    with pytest.raises(BadInput, match="would run code"):
        RWKV.from_checkpoint(path)
    path.write_bytes(pickle.dumps(_Attack(target)))
    with pytest.raises(BadInput):
        RWKV.from_checkpoint(path)
    assert not target.exists()


@pytest.mark.parametrize(
    "key,version",
    [
        ("blocks.0.att.r_k", "RWKV-7"),
        ("blocks.0.att.time_maa_x", "RWKV-6"),
        ("blocks.0.att.ln_x.weight", "RWKV-5"),
        ("blocks.1.tiny_q.weight", "RWKV-4a/b"),
    ],
)
def test_another_version_is_named(model: RWKV, tmp_path: Path, key: str, version: str) -> None:
    path = tmp_path / "other.pth"
    torch.save({**model.state_dict(), key: torch.zeros(2, 2)}, path)
    with pytest.raises(BadInput, match=f"a {version}"):
        RWKV.from_checkpoint(path)


def test_missing_surplus_and_misshapen_weights_are_named(model: RWKV, tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    tensors = dict(model.state_dict())
    missing = {k: v for k, v in tensors.items() if k != "blocks.1.ln2.bias"}
    cases = {
        r"lacks blocks\.1\.ln2\.bias": missing,
        "has unknown blocks.0.att.extra": {**tensors, "blocks.0.att.extra": torch.zeros(1)},
        "ln_out.weight has shape": {**tensors, "ln_out.weight": torch.zeros(3)},
        r"ffn\.value\.weight has shape": {
            **tensors,
            "blocks.0.ffn.value.weight": tensors["blocks.0.ffn.value.weight"].T.contiguous(),
        },
        "no RWKV checkpoint": {"transformer.wte.weight": torch.zeros(3, 3)},
        "not a mapping": [torch.zeros(1)],
    }
    for message, content in cases.items():
        torch.save(content, path)
        with pytest.raises(BadInput, match=message):
            RWKV.from_checkpoint(path)
