"""Checkpoints in the real formats, whole and broken."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rwkv_core.errors import BadInput
from rwkv_core.rwkv import heads, init
from rwkv_core.rwkv.checkpoint import save_pth
from rwkv_core.rwkv.model import RWKV
from rwkv_core.spec import ModelSpec
from tests.checks import parity

TOKENS = torch.tensor([[5, 1, 7, 7, 2]])


@pytest.fixture(scope="module")
def model() -> RWKV:
    return parity.make("tiny")


@pytest.fixture(scope="module", params=parity.SHAPES)
def each(request: pytest.FixtureRequest) -> RWKV:
    """A model of every version."""
    return parity.make("tiny", version=request.param)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_blinkdl_checkpoints_of_every_type(each: RWKV, tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "RWKV-tiny.pth"
    save_pth(each.state_dict(), path, getattr(torch, dtype))
    loaded = RWKV.from_checkpoint(path)
    assert loaded.spec.family == each.spec.family
    assert loaded.spec.architecture.items() >= each.spec.architecture.items()
    tolerance = 1e-6 if dtype == "float32" else 0.05
    torch.testing.assert_close(loaded(TOKENS), each(TOKENS), rtol=tolerance, atol=tolerance)


def test_neither_the_order_of_names_nor_axes_of_one_matter(each: RWKV, tmp_path: Path) -> None:
    tensors = {}
    for name, tensor in reversed(each.state_dict().items()):
        tensors[name] = tensor.squeeze()[None, None] if tensor.squeeze().dim() == 1 else tensor
    torch.save(tensors, tmp_path / "m.pth")
    assert torch.equal(RWKV.from_checkpoint(tmp_path / "m.pth")(TOKENS), each(TOKENS))


@pytest.mark.parametrize("version", ["rwkv5", "rwkv6", "rwkv7"])
def test_a_model_of_one_head_is_read(version: str, tmp_path: Path) -> None:
    shape = {**parity.make("tiny", version=version).spec.architecture, "head_size": 128}
    model = RWKV.of(ModelSpec("one", version, shape)).to_empty(device="cpu")
    init.random(model, 0)
    save_pth(model.state_dict(), tmp_path / "m.pth")
    assert RWKV.from_checkpoint(tmp_path / "m.pth").spec.architecture.items() >= shape.items()


def test_a_saved_folder_is_read_again(each: RWKV, tmp_path: Path) -> None:
    each.save(tmp_path / "saved")
    loaded = RWKV.from_checkpoint(tmp_path / "saved")
    assert loaded.spec.architecture.items() >= each.spec.architecture.items()
    torch.testing.assert_close(loaded(TOKENS), each(TOKENS), rtol=0.1, atol=0.1)


SAME = [("blocks.", "rwkv.blocks."), ("emb.", "rwkv.embeddings."), ("ln_out.", "rwkv.ln_out."), (".ln0.", ".pre_ln."),
        (".att.", ".attention."), (".ffn.", ".feed_forward.")]  # fmt: skip
HUB = {  # of each, parts of the names in BlinkDL's files and in the hub's folders
    "rwkv5": [*SAME, ("mix_k", "mix_key"), ("mix_v", "mix_value"), ("mix_r", "mix_receptance"), ("mix_g", "mix_gate")],
    "rwkv6": SAME,
}


@pytest.mark.parametrize("version", HUB)
def test_the_hubs_folders_of_rwkv5_and_6(version: str, tmp_path: Path) -> None:
    model = parity.make("tiny", version=version)
    tensors = {}
    for name, tensor in model.state_dict().items():
        for ours, theirs in HUB[version]:
            name = name.replace(ours, theirs)
        tensors[name] = tensor.contiguous()
    assert {"head.weight", "rwkv.blocks.0.attention.ln_x.weight", "rwkv.blocks.0.pre_ln.bias"} < tensors.keys()
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": version, "auto_map": {"AutoConfig": "evil.py"}}))
    assert torch.equal(RWKV.from_checkpoint(tmp_path)(TOKENS), model(TOKENS))


@pytest.mark.parametrize("older", [False, True])
def test_flash_linear_attentions_folders_of_rwkv7(tmp_path: Path, older: bool) -> None:
    """As pip rwkv7-hf writes them; older folders hold the six token-shift weights as one."""
    model = parity.make("tiny", version="rwkv7")
    peer = parity.rwkv7_hf(model)
    tensors = {name: tensor.contiguous() for name, tensor in peer.state_dict().items()}
    if older:
        for layer in range(2):
            name = f"model.layers.{layer}.attn.x_"
            tensors[name + "x"] = torch.cat([tensors.pop(name + letter)[0] for letter in "rwkvag"])
    save_file(tensors, tmp_path / "model.safetensors")
    peer.config.save_pretrained(tmp_path)
    assert torch.equal(RWKV.from_checkpoint(tmp_path)(TOKENS), model(TOKENS))


@torch.inference_mode()
def test_flash_linear_attentions_epsilon_is_that_of_all_norms(tmp_path: Path) -> None:
    model = parity.make("tiny", version="rwkv7")
    shape = {**model.spec.architecture, "layer_norm_epsilon": 1e-3}
    peer = parity.rwkv7_hf(model, norm_eps=1e-3)
    peer.save_pretrained(tmp_path)
    loaded = RWKV.from_checkpoint(tmp_path)
    assert loaded.spec.architecture.items() >= shape.items()
    torch.testing.assert_close(loaded(TOKENS), peer(TOKENS).logits, rtol=1e-5, atol=1e-5)
    loaded.save(tmp_path / "saved")
    assert RWKV.from_checkpoint(tmp_path / "saved").blocks[0].att.ln_x.eps == pytest.approx(64e-3)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_tied_folder_of_flash_linear_attention(tmp_path: Path, prefix: str) -> None:
    model = parity.make("tiny", version="rwkv7")
    with torch.no_grad():
        model.head.weight.copy_(model.emb.weight)
    tensors = {prefix + name: t.contiguous() for name, t in parity.rwkv7_hf(model).state_dict().items()}
    del tensors[prefix + "lm_head.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"tie_word_embeddings": True}))
    assert torch.equal(RWKV.from_checkpoint(tmp_path)(TOKENS), model(TOKENS))


@pytest.mark.parametrize(("version", "table"), [("rwkv5", "time_"), ("rwkv6", "time_faaaa"), ("rwkv7", "r_k")])
def test_a_table_of_heads_that_says_no_heads_is_refused(tmp_path: Path, version: str, table: str) -> None:
    tensors = parity.make("tiny", version=version).state_dict()
    flat = {name: tensor.flatten() if f".att.{table}" in name else tensor for name, tensor in tensors.items()}
    torch.save(flat, tmp_path / "m.pth")
    with pytest.raises(BadInput, match=r"cannot be read \((a table of heads has the shape|heads of 1 channels)"):
        RWKV.from_checkpoint(tmp_path / "m.pth")


@pytest.mark.parametrize("version", ["rwkv5", "rwkv6", "rwkv7"])
@torch.inference_mode()
def test_float16_holds_what_the_recurrence_sums_up(
    tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined = heads.joined
    model = parity.make("tiny", version=version)
    for block in model.blocks:
        block.att.receptance.weight.mul_(2e3)  # the queries fit, and what the state gives them does not
        block.att.value.weight.mul_(1e3)
        if version == "rwkv7":
            block.att.r_k.zero_()  # a bonus that no norm brings back
    save_pth(model.state_dict(), tmp_path / "m.pth")
    half = RWKV.from_checkpoint(tmp_path / "m.pth", dtype="float16")
    sums = []
    monkeypatch.setattr(heads, "joined", lambda y, norm, like: (sums.append(y), joined(y, norm, like))[1])
    logits = half(TOKENS)
    assert float(sums[0].abs().max()) > torch.finfo(torch.float16).max, "the test would show nothing"
    assert torch.cosine_similarity(logits.float().flatten(), model(TOKENS).flatten(), dim=0) > 0.97


@pytest.mark.parametrize("prefix", ["", "rwkv7."])
def test_rwkv7_with_a_first_layer_that_nothing_reads(tmp_path: Path, prefix: str) -> None:
    model = parity.make("tiny", version="rwkv7")
    unread = {f"blocks.0.att.v{i}": torch.full((1, 1, 3), torch.nan) for i in range(3)}
    tensors = {prefix * (name != "head.weight") + name: t for name, t in {**model.state_dict(), **unread}.items()}
    torch.save(tensors, tmp_path / "m.pth")
    loaded = RWKV.from_checkpoint(tmp_path / "m.pth")
    assert torch.equal(loaded(TOKENS), model(TOKENS)) and loaded.parameter_count == model.parameter_count


def test_rwkv5_with_a_bonus_that_stands_in_an_exponent(tmp_path: Path) -> None:
    model = parity.make("tiny", version="rwkv5.0")
    with torch.no_grad():
        for block in model.blocks:
            block.att.time_faaaa.abs_().add_(0.1)
    logs = {n.replace("faaaa", "first"): t.log() if "faaaa" in n else t for n, t in model.state_dict().items()}
    torch.save(logs, tmp_path / "m.pth")
    torch.testing.assert_close(RWKV.from_checkpoint(tmp_path / "m.pth")(TOKENS), model(TOKENS))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_keeps_decay_and_logits(each: RWKV, tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "m.pth"
    save_pth(each.state_dict(), path)
    loaded = RWKV.from_checkpoint(path, dtype=dtype)
    decay = "w0" if each.spec.family == "rwkv7" else "time_decay"
    assert getattr(loaded.blocks[0].att, decay).dtype == torch.float32
    assert loaded.emb.weight.dtype == getattr(torch, dtype)
    torch.testing.assert_close(loaded(TOKENS).float(), each(TOKENS), rtol=0.1, atol=0.1)


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
    "version,names,message",
    [
        ("rwkv4", ["blocks.1.tiny_q.weight"], "a checkpoint of RWKV-4a/b"),
        ("rwkv5", ["blocks.0.att.time_state"], "a checkpoint of RWKV-5/6 state-tuned"),
        ("rwkv6", ["blocks.0.att.gate_w1", "blocks.0.att.gate_w2"], "a checkpoint of RWKV-6 x060a"),
        ("rwkv6", ["blocks.0.att.time_maa_rkvw_w1"], "a checkpoint of RWKV-6 x060b/c"),
        ("rwkv7", ["blocks.1.ffn.s_emb.weight"], "a checkpoint of RWKV-7a"),
        ("rwkv7", ["blocks.1.ffn.s0"], "a checkpoint of RWKV-7a"),
        ("rwkv4", ["blocks.0.att.xx_r", "blocks.0.att.ww_w1"], "a checkpoint of RWKV-7 under names of before"),
        ("rwkv4", ["blocks.0.att.r_k"], "the sizes of this RWKV-7 cannot be read|this RWKV-7 checkpoint lacks"),
        ("rwkv6", ["blocks.0.att.r_k"], "this RWKV-7 checkpoint lacks|the sizes of this RWKV-7 cannot be read"),
        ("rwkv5", ["blocks.0.att.time_maa_x"], "the sizes of this RWKV-6 cannot be read"),
        ("rwkv4", ["blocks.0.att.ln_x.weight"], "the sizes of this RWKV-5 cannot be read"),
        ("rwkv7", ["blocks.0.att.time_first"], "this RWKV-7 checkpoint has unknown blocks.0.att.time_first"),
    ],
)
def test_variants_and_mixed_versions_are_refused_in_a_line(
    tmp_path: Path, version: str, names: list[str], message: str
) -> None:
    path = tmp_path / "other.pth"
    tensors = parity.make("tiny", version=version).state_dict()
    torch.save({**tensors, **dict.fromkeys(names, torch.zeros(2, 2))}, path)
    with pytest.raises(BadInput, match=message) as raised:
        RWKV.from_checkpoint(path)
    assert "\n" not in str(raised.value)


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
