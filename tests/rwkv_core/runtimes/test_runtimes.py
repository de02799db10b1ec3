"""Every runtime of RWKV-4 gives the native one's logits, in whole texts, in parts and from states; what one lacks."""

import dataclasses
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import matrix
from bench.speed import agreement, inference, peers
from evals.ask.score import Scorer
from evals.ask.sharing import Request
from evals.language import pretrain
from rwkv_core import machine, models
from rwkv_core.errors import BadInput, Unsupported
from rwkv_core.load import load
from rwkv_core.runtimes import RUNTIMES, pip_rwkv
from rwkv_core.rwkv import checkpoint
from rwkv_core.spec import LanguageModel, ModelSpec
from tests.checks import parity
from tests.rwkv_core.runtimes.test_hf import SMALL

OTHERS = [name for name in RUNTIMES if name != "native"]
TOKENS = torch.randint(parity.SIZES["tiny"][2], (2, 9), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    checkpoint.save_pth(parity.make("tiny").state_dict(), path)
    return path


def spec(weights: Path, runtime: str) -> ModelSpec:
    layers, width, vocab = parity.SIZES["tiny"]
    shape = {"model_type": "rwkv", "vocab_size": vocab, "hidden_size": width, "num_hidden_layers": layers}
    return ModelSpec("tiny", "rwkv4", shape, weights=str(weights), runtime=runtime)


@pytest.fixture(scope="module", params=OTHERS)
def pair(request: pytest.FixtureRequest, weights: Path) -> tuple[LanguageModel, LanguageModel]:
    """The native model and another runtime's, of the same weights."""
    if request.param == "pip_rwkv" and importlib.util.find_spec("rwkv") is None:
        pytest.skip("pip rwkv is not installed")
    return load(spec(weights, "native")), load(spec(weights, request.param))


def near(theirs: torch.Tensor, ours: torch.Tensor) -> bool:
    return bool((theirs - ours).abs().max() <= 1e-5 * ours.abs().max())


@torch.inference_mode()
def test_texts_parts_and_rows(pair: tuple[LanguageModel, LanguageModel]) -> None:
    native, model = pair
    tokens = TOKENS
    whole = native.logits(native.hidden(tokens)[0])
    assert near(model.logits(model.hidden(tokens)[0]), whole)
    hidden, state = model.hidden(tokens[:, :5])
    rows = torch.tensor([1, 0, 1])
    taken = model.take(state, rows)
    for start, end in ((5, 7), (7, 9)):  # the copy is another state: what is read from one does not change the other
        hidden, state = model.hidden(tokens[:, start:end], state)
        assert near(model.logits(hidden), whole[:, start:end])
    hidden, taken = model.hidden(tokens[rows, 5:8], taken, last=True)
    assert near(model.logits(hidden[:, -1]), whole[rows, 7])
    hidden, _ = model.hidden(tokens[1:, 8:], model.take(taken, torch.tensor([0])), last=True)
    assert near(model.logits(hidden[:, -1]), whole[1:, 8])
    state_bytes = native.state_bytes(native.hidden(tokens)[1])
    assert model.state_bytes(state) == model.held_bytes(state) == state_bytes == native.spec.state_bytes(9, batch=2)


def test_what_they_say_of_their_weights(pair: tuple[LanguageModel, LanguageModel]) -> None:
    native, model = pair
    assert model.parameter_count == native.parameter_count and model.itemsize == 4
    assert model.fingerprint() == native.fingerprint() and model.attention != native.attention
    assert model.parameter_bytes == pytest.approx(native.parameter_bytes, rel=0.01)  # pip rwkv folds an operation in
    with pytest.raises(BadInput, match="no tokenizer"):
        model.codec  # noqa: B018


def test_the_experiments_run_with_them(pair: tuple[LanguageModel, LanguageModel]) -> None:
    native, model = pair
    metrics, samples = inference.run(model, device="cpu", prompt_tokens=4, new_tokens=6)
    assert metrics["disagreement"] < 1e-4 and metrics["carries_state"] and len(samples["token_seconds"]) == 3
    rng = np.random.default_rng(0)
    texts = [rng.integers(native.spec.vocab_size, size=length, dtype=np.int32) for length in (3, 9, 9, 5)]
    requests = [Request(text, 2) for text in [*texts, np.append(texts[1][:8], np.int32(1))]]
    theirs, ours = (Scorer(one, "cpu").score(requests)[0] for one in (model, native))
    for one, other in zip(theirs, ours, strict=True):
        assert one.loglikelihood == pytest.approx(other.loglikelihood, rel=1e-4) and one.greedy == other.greedy


@pytest.mark.skipif(not pip_rwkv.installed(), reason="pip rwkv is not installed")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_half_precision_is_held_to_its_own_bound_and_the_package_changes_no_setting(
    weights: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "rwkv.model", raising=False)  # what it sets, it sets when it is imported
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.benchmark = False
    model = load(spec(weights, "pip_rwkv"), dtype=dtype)
    assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.benchmark
    if dtype == "bfloat16":  # its logits come as float32, whose bound does not hold for them
        monkeypatch.setitem(agreement.AGREEMENT, torch.float32, -1.0)
    metrics, _ = inference.run(model, device="cpu", prompt_tokens=4, new_tokens=6)
    assert (model.itemsize, metrics["disagreement"] < 0.1) == ({"bfloat16": 2, "float32": 4}[dtype], True)


def test_a_model_that_has_no_room_beside_its_copy_is_not_loaded(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda: 5_000_000)
    for runtime, times in (("pip_rwkv", 8), ("transformers", 4)):
        small = dataclasses.replace(spec(weights, runtime), parameters=6_000_000 // times)
        with pytest.raises(MemoryError, match="tiny: "):
            load(small, dtype="bfloat16")


def test_what_they_cannot_is_one_line(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = ModelSpec("small", "rwkv4", {**spec(weights, "").architecture}, weights="fresh:0", runtime="transformers")
    with pytest.raises(Unsupported, match="small: `runtime: transformers` cannot train"):
        pretrain.check_fresh(load(fresh))  # type: ignore[arg-type]
    ragged = load(spec(weights, "transformers"))
    with pytest.raises(Unsupported, match="keeps no state at a padded row's true end"):
        ragged.hidden(TOKENS[:, :3], lengths=torch.tensor([3, 1]))
    with pytest.raises(Unsupported, match="mixes the rows of a batch at single tokens"):
        ragged.hidden(TOKENS[:, :1], ragged.hidden(TOKENS[:, :3])[1])
    for runtime in ("native", "pip_rwkv"):
        with pytest.raises(Unsupported, match=f"pythia is no RWKV, which is all that `runtime: {runtime}` runs"):
            load(ModelSpec("pythia", "pythia", SMALL["pythia"], weights="random:0", runtime=runtime))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(BadInput, match="is not installed"):  # which is no finding: it is tried again
        load(spec(weights, "pip_rwkv"))


def test_the_runtime_is_an_axis_of_the_matrix(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    text = "runs:\n  - {experiment: inference, model: [rwkv4-169m, pythia-160m], weights: random:0, runtime: %s}\n"
    path.write_text(text % "[default, native, transformers]")
    cells = matrix.read(path)
    assert [(cell.model.name, cell.model.runtime) for cell in cells] == [
        ("rwkv4-169m", "native"),  # which is its default
        ("rwkv4-169m", "transformers"),
        ("pythia-160m", "transformers"),
        ("pythia-160m", "native"),
    ]
    assert len({cell.id for cell in cells}) == 4 and models.find("rwkv4-169m").runtime == "native"
    path.write_text(text % "transformer")
    with pytest.raises(BadInput, match="unknown runtime 'transformer': did you mean transformers"):
        matrix.read(path)


def test_what_runs_nothing_or_all_of_them_has_no_runtime_to_choose(tmp_path: Path, weights: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(
        "runs:\n  - {experiment: kernels, model: rwkv4-169m, weights: random:0, runtime: [native, transformers]}\n"
    )
    assert [cell.model and cell.model.runtime for cell in matrix.read(path)] == ["native"]
    with pytest.raises(BadInput, match="every runtime of it is raced in any case; leave `runtime` out"):
        peers.run(load(spec(weights, "transformers")), device="cpu")
