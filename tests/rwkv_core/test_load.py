"""Names -> models: the list, random weights, local weights, and what is refused."""

import dataclasses
import errno
import fnmatch
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from rwkv_core import content, load, machine, models
from rwkv_core.errors import BadInput, Unsupported, out_of_memory
from rwkv_core.models import find
from rwkv_core.rwkv import checkpoint
from rwkv_core.rwkv.model import RWKV
from rwkv_core.spec import ModelSpec
from tests.checks import parity

LANGUAGE_MODELS = [name for name, spec in models.catalogue().items() if spec.family != "encoder"]


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_parameters_of_every_model(name: str) -> None:
    spec = find(name)
    if spec.runtime == "native":
        model: torch.nn.Module = RWKV.of(spec)
    else:
        shape = dict(spec.architecture)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(shape.pop("model_type"), **shape))
    assert sum(p.numel() for p in model.parameters()) == spec.parameters


def test_there_are_60_models_and_the_pocket_ones() -> None:
    assert len([spec for spec in models.catalogue().values() if not spec.repo.startswith("package:")]) == 60
    assert all(spec.repo and spec.label for spec in models.catalogue().values())


@pytest.mark.parametrize("name", ["pythia-14m", "rwkv4-169m"])
def test_random_weights_follow_the_seed_and_are_not_zero(name: str) -> None:
    prints = []
    for seed in (0, 0, 1):
        model = load.load(find(name, weights=f"random:{seed}"))
        prints.append(model.fingerprint())
        assert all(p.any() for _, p in model.named_parameters() if p.dim() >= 2)
        assert all(p.isfinite().all() for _, p in model.named_parameters())
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_random_weights_have_the_type_and_decay_stays_in_float32(dtype: str) -> None:
    spec = ModelSpec("tiny", "rwkv4", parity.make("tiny").spec.architecture, weights="random:0")
    found = {name.rpartition(".")[2]: p.dtype for name, p in load.load(spec, dtype=dtype).named_parameters()}
    assert found.pop("time_decay") == found.pop("time_first") == torch.float32
    assert set(found.values()) == {getattr(torch, dtype)}


def test_one_file_of_a_repository_is_loaded_and_its_commit_is_that_of_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "c" * 40
    small = parity.make("tiny")
    (tmp_path / commit).mkdir()
    checkpoint.save_pth(small.tensors(), tmp_path / commit / "small.pth")

    def download(repo: str, file: str, revision: str) -> str:
        assert (repo, revision) == ("owner/name", commit)
        return str(tmp_path / revision / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    architecture = small.spec.architecture
    spec = ModelSpec("small", "rwkv4", architecture, repo="owner/name:small.pth", revision=commit)
    model = load.load(spec)
    assert model.revision == commit and model.fingerprint() == small.fingerprint()
    monkeypatch.setattr(content, "commit", lambda repo, revision: f"of {repo}")
    assert content.identified(spec) == (dataclasses.replace(spec, revision="of owner/name"), "")


def test_a_repository_is_downloaded_with_its_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small, patterns = parity.make("tiny"), []
    parity.save_transformers(small, tmp_path)

    def download(repo: str, revision: str, allow_patterns: list[str]) -> str:
        patterns.extend(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    load.load(ModelSpec("small", "rwkv4", small.spec.architecture, repo="owner/name"))
    names = ("model.safetensors", "pytorch_model.bin", "tokenizer.json", "rwkv_vocab_v20230424.txt")
    assert all(any(fnmatch.fnmatch(name, pattern) for pattern in patterns) for name in names)
    assert not any(fnmatch.fnmatch("modeling_rwkv6.py", pattern) for pattern in patterns)


def test_weights_of_another_shape_with_as_many_parameters_are_refused(tmp_path: Path) -> None:
    model = parity.make("tiny", version="rwkv7")
    checkpoint.save_pth(model.tensors(), tmp_path / "m.pth")
    shape = {**model.spec.architecture, "head_size": 32}
    with pytest.raises(BadInput, match="head_size is 64, small has 32; is it that"):
        load.load(ModelSpec("small", "rwkv7", shape, weights=str(tmp_path / "m.pth")))


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(BadInput, match="did you mean rwkv4-169m"):
        load.load("rwkv4-196m")


def test_unusable_requests() -> None:
    with pytest.raises(BadInput, match="unknown dtype"):
        load.load("pythia-14m", dtype="float8")
    with pytest.raises(BadInput, match="random:SEED"):
        load.load(find("pythia-14m", weights="random:x"))
    with pytest.raises(MemoryError, match="GB of weights"):
        load.load(ModelSpec("huge", "rwkv4", {}, parameters=10**15))
    if not torch.cuda.is_available():
        with pytest.raises(Unsupported, match="no CUDA device"):
            load.load("pythia-14m", device="cuda")


@pytest.mark.parametrize("name", ["pythia-14m", "rwkv4-169m"])
def test_offline_names_the_repository_and_the_way_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BadInput, match=rf"{find(name).repo}.*give its folder") as caught:
        load.load(name)
    assert "\n" not in str(caught.value)


def test_a_cached_hub_repository_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--RWKV--tiny"
    built = parity.make("tiny")
    parity.save_transformers(built, repository / "snapshots" / commit, safe=False)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    loaded = load.load(ModelSpec("tiny", "rwkv4", built.spec.architecture, repo="RWKV/tiny"))
    assert loaded.fingerprint() == built.fingerprint() and loaded.revision == commit


def test_local_weights(tmp_path: Path) -> None:
    built = load.load(find("pythia-14m", weights="random:7"))
    built.causal.save_pretrained(tmp_path)  # type: ignore[attr-defined]
    loaded = load.load(find("pythia-14m", weights=str(tmp_path)))
    assert loaded.fingerprint() == built.fingerprint()
    with pytest.raises(BadInput, match="is it that model"):
        load.load(find("pythia-31m", weights=str(tmp_path)))
    with pytest.raises(BadInput, match="no such model folder"):
        load.load(find("pythia-14m", weights=str(tmp_path / "absent")))
    tensors = load_file(tmp_path / "model.safetensors")
    lost = tensors.pop("gpt_neox.final_layer_norm.weight")
    save_file({**tensors, "gpt_neox.extra": lost}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"missing or unknown: gpt_neox\.extra, gpt_neox\.final_layer_norm\.weight"):
        load.load(find("pythia-14m", weights=str(tmp_path)))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(BadInput, match="not a model folder"):
        load.load(find("pythia-14m", weights=str(tmp_path)))
    parity.save_transformers(parity.make("tiny"), tmp_path / "rwkv")
    with pytest.raises(BadInput, match="is it that model"):
        load.load(find("rwkv4-169m", weights=str(tmp_path / "rwkv")))


def test_a_system_that_does_not_tell_its_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda: None)
    assert load.load(find("pythia-14m", weights="random:0")).spec.parameters
    monkeypatch.setattr(machine, "free_memory", lambda: 3072)
    with pytest.raises(MemoryError, match="GB of weights"):
        load.load(find("pythia-14m", weights="random:0"))


def test_a_system_that_has_no_memory_to_map_is_out_of_memory() -> None:
    assert out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory"))
    assert not out_of_memory(OSError(errno.ENOSPC, "No space left on device"))
