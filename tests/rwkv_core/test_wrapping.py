"""Checkpoints as training tools and the hub's older conversions leave them: the same weights, or one line."""

import json
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench import run
from rwkv_core import wrapping
from rwkv_core.errors import BadInput
from rwkv_core.load import load
from rwkv_core.runtimes import transformers_rwkv
from rwkv_core.rwkv.checkpoint import save_pth
from rwkv_core.rwkv.model import RWKV
from rwkv_core.spec import ModelSpec
from tests.checks import parity
from tests.rwkv_core.runtimes.test_hf import SMALL, small

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def model() -> RWKV:
    return parity.make("tiny")


def named(model: RWKV) -> Tensors:
    """By BlinkDL's names."""
    return dict(model.state_dict())


def prefixed(tensors: Tensors, before: str) -> Tensors:
    return {before + name: tensor for name, tensor in tensors.items()}


PREFIXES = [*wrapping.PREFIXES, "module._orig_mod.", "_forward_module.module.model."]


@pytest.mark.parametrize("kind", ["pth", "bin", "safetensors", "transformers' names", "folder"])
@pytest.mark.parametrize("before", PREFIXES)
def test_prefixes(model: RWKV, tmp_path: Path, before: str, kind: str) -> None:
    tensors = named(model) if kind != "transformers' names" else dict(transformers_rwkv.converted(model).state_dict())
    tensors = {name: tensor.contiguous() for name, tensor in prefixed(tensors, before).items()}
    path = tmp_path / (
        "m.safetensors" if kind == "safetensors" else "pytorch_model.bin" if kind == "folder" else "m.pth"
    )
    save_file(tensors, path) if kind == "safetensors" else torch.save(tensors, path)
    loaded = RWKV.from_checkpoint(tmp_path if kind == "folder" else path)
    assert loaded.fingerprint() == model.fingerprint() and loaded.layout == f"names begin with {before}"


NESTED: dict[str, Callable[[Tensors], Any]] = {
    "state_dict": lambda t: {"state_dict": OrderedDict(t), "epoch": 3, "optimizer": {"state": {0: t}}},
    "model_state_dict": lambda t: {"model_state_dict": t, "optimizer_state_dict": {"state": {}}, "loss": 0.3},
    "module": lambda t: {"module": t, "global_steps": torch.tensor(7), "lr": None},
    "model": lambda t: {"model": t, "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4}]}},
    "state_dict > model": lambda t: {"state_dict": {"model": t, "ema": t}, "model": {"layers": 3}},
}


@pytest.mark.parametrize("nest", NESTED)
def test_nested_weights_are_found_and_the_record_says_where(model: RWKV, tmp_path: Path, nest: str) -> None:
    path = tmp_path / "m.pth"
    torch.save(NESTED[nest](prefixed(named(model), "module.")), path)
    loaded = RWKV.from_checkpoint(path)
    assert loaded.fingerprint() == model.fingerprint()
    assert loaded.layout == f"nested under {nest}, names begin with module."
    assert run._facts(loaded)["weights_layout"] == loaded.layout
    assert "weights_layout" not in run._facts(model)


def test_what_is_no_one_set_of_weights_is_one_line(model: RWKV, tmp_path: Path) -> None:
    path, tensors = tmp_path / "m.pth", named(model)
    (one, value), *_ = tensors.items()
    rest = {name: tensor for name, tensor in tensors.items() if name != one}
    cases: dict[str, Any] = {
        r"1 of its names begin with 'module\.', the other \d+ do not": {**rest, f"module.{one}": value},
        r"1 of its names begin with '_orig_mod\.', others with 'module\.'": {
            **prefixed(rest, "module."),
            f"_orig_mod.{one}": value,
        },
        r"1 of its names begin with 'module\._orig_mod\.', others with 'module\.model\.'": {
            **prefixed(rest, "module.model."),
            f"module._orig_mod.{one}": value,
        },
        "holds weights under state_dict and model; save": {"state_dict": tensors, "model": tensors},
        "holds epoch among its weights, which are no tensors": {**tensors, "epoch": 3},
        "holds a mapping of weights, epoch; weights are looked for": {"weights": [1], "epoch": 3},
        "holds an empty mapping": {},
        "not a mapping from names": [value],
        "names one of its tensors 3": {3: value},
        "names one of its tensors 0": {"state_dict": {0: value}},
        r"no name in it begins with blocks\. \(it begins with net\.": prefixed(tensors, "net."),
    }
    for message, content in cases.items():
        torch.save(content, path)
        with pytest.raises(BadInput, match=message) as caught:
            RWKV.from_checkpoint(path)
        assert "\n" not in str(caught.value)


def test_weights_that_are_no_weights_are_named(model: RWKV, tmp_path: Path) -> None:
    path, tensors = tmp_path / "m.pth", named(model)
    key = "blocks.1.ffn.key.weight"
    cases = {
        r"blocks\.1\.ffn\.key\.weight is of type int64": {**tensors, key: tensors[key].long()},
        r"blocks\.1\.ffn\.key\.weight is of type bool": {**tensors, key: tensors[key] > 0},
        r"lacks blocks\.\d+, and has blocks\.99999999": {**tensors, "blocks.99999999.ln1.weight": torch.ones(1)},
        r"no usable 'blocks\.0\.att\.key\.weight' in it": {**tensors, "blocks.0.att.key.weight": torch.tensor(1.0)},
        r"no usable 'emb\.weight' in it": {name: torch.empty(0) for name in tensors},
        r"blocks\.1\.ffn\.key\.weight is sparse": {**tensors, key: tensors[key].to_sparse()},
        r"blocks\.1\.ffn\.key\.weight is empty": {**tensors, key: tensors[key].to("meta")},
    }
    for message, content in cases.items():
        torch.save(content, path)
        with pytest.raises(BadInput, match=message):
            RWKV.from_checkpoint(path)


def test_a_truncated_file_is_not_an_invalid_argument(tmp_path: Path) -> None:
    torch.save({"emb.weight": torch.ones(9999)}, tmp_path / "whole.pth")
    (tmp_path / "m.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:10_000])
    with pytest.raises(BadInput, match="truncated or damaged"):
        RWKV.from_checkpoint(tmp_path / "m.pth")


def save_pickled(path: Path) -> None:
    with path.open("wb") as file:
        pickle.dump(torch.nn.Linear(2, 2), file)


PICKLES: dict[str, Callable[[Path], None]] = {
    "a module": lambda path: torch.save(torch.nn.Linear(2, 2), path),
    "a module by pickle": save_pickled,
    "TorchScript": lambda path: torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path),
    "arguments beside": lambda path: torch.save({"state_dict": {}, "args": Path("a")}, path),
}


@pytest.mark.filterwarnings("ignore")  # torch's, of what it refuses
@pytest.mark.parametrize("kind", PICKLES)
def test_what_would_run_code_is_refused_as_that(tmp_path: Path, kind: str) -> None:
    PICKLES[kind](tmp_path / "m.pth")
    with pytest.raises(BadInput, match="refused, since this pickle holds more than tensors") as caught:
        RWKV.from_checkpoint(tmp_path / "m.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error", [IndexError, AssertionError, TypeError, struct.error, AttributeError, NotImplementedError]
)
def test_whatever_a_damaged_pickle_raises_is_one_line(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise error("deep inside")

    (tmp_path / "m.pth").write_bytes(b"x")
    monkeypatch.setattr(torch, "load", broken)
    with pytest.raises(BadInput, match="truncated or damaged"):
        RWKV.from_checkpoint(tmp_path / "m.pth")
    monkeypatch.setattr(torch, "load", lambda *_, **__: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError):
        RWKV.from_checkpoint(tmp_path / "m.pth")


@pytest.mark.parametrize("config,message", [
    ({"context_length": "long"}, "context_length is 'long'"),
    ({"context_length": [1]}, "context_length is"),
    ({"layer_norm_epsilon": None}, "layer_norm_epsilon is None"),
    ({"layer_norm_epsilon": -1.0}, "layer_norm_epsilon is -1.0"),
    ({"layer_norm_epsilon": float("nan")}, "layer_norm_epsilon is nan"),
])  # fmt: skip
def test_a_config_of_wrong_types_is_one_line(model: RWKV, tmp_path: Path, config: Any, message: str) -> None:
    save_pth(model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match=f"config.json: {message}"):
        RWKV.from_checkpoint(tmp_path)


@pytest.mark.parametrize("weight_map", [{"a": ["b"]}, {"a": 1}, {"a": None}, [], "x"])
def test_an_index_of_wrong_types_is_one_line(tmp_path: Path, weight_map: Any) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(BadInput, match="no weight_map of file names"):
        RWKV.from_checkpoint(tmp_path)


MASK, FILL = torch.ones(1, 1, 64, 64, dtype=torch.bool).tril(), torch.tensor(-1e9)


def layers(form: str, **buffers: torch.Tensor) -> Tensors:
    return {f"{form.format(i)}.{name}": tensor for i in range(2) for name, tensor in buffers.items()}


def without(tensors: Tensors, before: str) -> Tensors:
    return {name.removeprefix(before): tensor for name, tensor in tensors.items()}


HUB: dict[str, tuple[str, Callable[[Tensors], Tensors]]] = {  # family, and its files as older conversions have them
    "gpt-neo, masks": ("gpt-neo", lambda t: t | layers("transformer.h.{}.attn.attention", bias=MASK, masked_bias=FILL)),
    "gpt-neo, head": ("gpt-neo", lambda t: t | {"lm_head.weight": t["transformer.wte.weight"]}),
    "pythia, masks": ("pythia", lambda t: t | layers("gpt_neox.layers.{}.attention", bias=MASK, masked_bias=FILL)),
    "pythia, rotary": ("pythia", lambda t: t | layers("gpt_neox.layers.{}.attention.rotary_emb", inv_freq=FILL)),
    "opt, bare": ("opt", lambda t: without(t, "model.")),
    "opt, version": ("opt", lambda t: {**without(t, "model."), "decoder.version": torch.tensor([3.0])}),
    "opt, head": (
        "opt",
        lambda t: t | {"model.decoder.version": FILL, "lm_head.weight": t["model.decoder.embed_tokens.weight"]},
    ),
    "bloom, bare": ("bloom", lambda t: without(t, "transformer.")),
    "mamba, head": ("mamba", lambda t: t | {"lm_head.weight": t["backbone.embeddings.weight"]}),
    "mamba, first names": ("mamba", lambda t: {k.replace("embeddings", "embedding"): v for k, v in t.items()}),
    **{f"{family}, wrapped": (family, lambda t: prefixed(t, "module._orig_mod.")) for family in SMALL},
}


@pytest.mark.parametrize("form", HUB)
def test_the_hubs_older_files_load_to_the_bit(form: str, tmp_path: Path) -> None:
    family, change = HUB[form]
    built = small(family)
    built.causal.save_pretrained(tmp_path)
    tensors = change(load_file(tmp_path / "model.safetensors"))
    save_file({k: v.clone() for k, v in tensors.items()}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = load(ModelSpec(family, family, SMALL[family], weights=str(tmp_path)))
    tokens = torch.randint(128, (1, 20))
    with torch.inference_mode():
        assert torch.equal(loaded.logits(loaded.hidden(tokens)[0]), built.logits(built.hidden(tokens)[0]))
    assert loaded.layout == ("names begin with module._orig_mod." if "wrapped" in form else "")


@pytest.mark.parametrize("extra", [
    "transformer.h.0.attn.attention.extra", "transformer.h.0.attn.bias", "transformer.h.0.mlp.masked_bias",
    "transformer.attention.bias.weight",
])  # fmt: skip
def test_any_other_key_is_still_refused(extra: str, tmp_path: Path) -> None:
    built = small("gpt-neo")
    built.causal.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors") | {extra: torch.ones(1)}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=f"missing or unknown: {extra}"):
        load(ModelSpec("gpt-neo", "gpt-neo", SMALL["gpt-neo"], weights=str(tmp_path)))


def test_other_families_are_refused_in_the_same_cases(tmp_path: Path) -> None:
    small("pythia").causal.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    half = {f"module.{name}" if i % 2 else name: tensor for i, (name, tensor) in enumerate(tensors.items())}
    cases: dict[str, Any] = {
        r"of its names begin with 'module\.', the other \d+ do not": half,
        "weights are missing or unknown: state_dict, ": {"state_dict": tensors},
        "refused, since this pickle holds more than tensors": torch.nn.Linear(2, 2),
        "KeyError: .*; is it whole": None,
    }
    for message, content in cases.items():
        torch.save(content, path := tmp_path / "pytorch_model.bin")
        if content is None:
            path.write_text("hello\n")
        with pytest.raises(BadInput, match=message) as caught:
            load(ModelSpec("pythia", "pythia", SMALL["pythia"], weights=str(tmp_path)))
        assert "\n" not in str(caught.value)


def test_a_folder_of_which_transformers_makes_nothing_is_one_line(tmp_path: Path) -> None:
    built = small("pythia")
    built.causal.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change in (
        {"hidden_size": "wide"},
        {"num_hidden_layers": None},
        {"num_attention_heads": [2]},
        {"vocab_size": 64},
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(BadInput, match=r"not a model folder|missing or unknown") as caught:
            load(ModelSpec("pythia", "pythia", SMALL["pythia"], weights=str(tmp_path)))
        assert "\n" not in str(caught.value)
