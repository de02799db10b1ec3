"""What stands before a text, with pocket models whose right scores lm-eval's HFLM gave (float32, batch 1)."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from evals.ask.asker import Asker
from evals.needles import run as needles
from evals.pocket.make import END, TOKENIZER_FILE
from evals.zeroshot.run import run
from rwkv_core.errors import BadInput
from rwkv_core.load import load
from rwkv_core.models import find
from rwkv_core.spec import LanguageModel

BARREL = " the barrel"


def opt(folder: Path, **config: Any) -> LanguageModel:
    """The pocket OPT in the hub's format, its tokenizer as vocab.json and merges.txt."""
    shutil.copytree(TOKENIZER_FILE.parent / "pocket-opt", folder)
    model = json.loads(TOKENIZER_FILE.read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, model["merges"])]) + "\n")
    if config:
        names = dict.fromkeys(("unk_token", "bos_token", "eos_token", "pad_token"), END)
        (folder / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "GPT2Tokenizer", **names, **config})
        )
    return load(find("pocket-opt", weights=str(folder)))


@pytest.fixture(scope="module")
def with_bos(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return opt(tmp_path_factory.mktemp("bos") / "opt", add_bos_token=True)


def scores(model: LanguageModel, task: str, *metrics: str, **more: Any) -> list[float]:
    found, _ = run(model, device="cpu", task=task, data="pocket", docs=40, **more)
    return [round(found[metric], 4) for metric in metrics]


def test_opts_bos_is_there_in_v04(with_bos: LanguageModel) -> None:
    assert scores(with_bos, "piqa", "acc") == [0.95]
    assert scores(with_bos, "lambada_openai", "perplexity", "acc") == [2.6646, 0.5]
    assert scores(with_bos, "arc_challenge", "acc", "acc_norm") == [0.275, 0.35]
    assert scores(with_bos, "boolq", "acc") == [0.5]


def test_v03_puts_none(with_bos: LanguageModel) -> None:
    plain = load("pocket-opt")
    for task in ("piqa", "lambada_openai"):
        assert scores(with_bos, task, "acc", protocol="v0.3") == scores(plain, task, "acc", protocol="v0.3")
    found = run(with_bos, device="cpu", task="piqa", data="pocket", docs=2, protocol="v0.3")[0]
    assert found["special_tokens"] == []


def test_a_file_with_a_bos_puts_it_wherever_it_is_given(tmp_path: Path) -> None:
    """As HFLM does over a PreTrainedTokenizerFast of that file."""
    path = tmp_path / "tokenizer.json"
    state = json.loads(TOKENIZER_FILE.read_text())
    piece = {"SpecialToken": {"id": END, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    state["post_processor"] = {
        "type": "TemplateProcessing",
        "single": piece,
        "pair": [*piece, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {END: {"id": END, "ids": [0], "tokens": [END]}},
    }
    path.write_text(json.dumps(state))
    metrics, _ = run(load("pocket-opt"), device="cpu", task="piqa", data="pocket", docs=40, tokenizer=str(path))
    assert (metrics["acc"], metrics["special_tokens"]) == (0.95, [0])


@pytest.mark.parametrize(("model", "right"), [("pocket-rwkv4", 1.0), ("pocket-pythia", 0.95)])
def test_a_file_that_remembers_truncation_cuts_nothing(model: str, right: float, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    truncation = {"direction": "Right", "max_length": 16, "strategy": "LongestFirst", "stride": 0}
    path.write_text(json.dumps({**json.loads(TOKENIZER_FILE.read_text()), "truncation": truncation}))
    loaded = load(model)
    assert scores(loaded, "piqa", "acc", tokenizer=str(path)) == [right]
    asked = ("lambada_openai", "perplexity")
    assert scores(loaded, *asked, protocol="v0.3", tokenizer=str(path)) == scores(loaded, *asked, protocol="v0.3")


def test_a_tokenizer_of_its_own_goes_before_a_foreign_one_above(tmp_path: Path) -> None:
    state = json.loads(TOKENIZER_FILE.read_text())
    words = [word for word in state["model"]["vocab"] if word != END]
    state["model"]["vocab"] = {END: 0, **{word: 1 + i for i, word in enumerate(reversed(words))}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    model = opt(tmp_path / "opt")
    assert scores(model, "lambada_openai", "perplexity") == [3.3217]
    assert scores(model, "piqa", "acc") == [0.975]


def asked(model: LanguageModel, protocol: Any = "v0.4") -> Asker:
    return Asker.of(model, "cpu", "own", protocol)


@torch.inference_mode()
def likelihood(model: LanguageModel, tokens: list[int]) -> float:
    """Of all tokens but the first, each given all before it."""
    hidden, _ = model.hidden(torch.tensor([tokens[:-1]]))
    logits = model.logits(hidden[0]).float().log_softmax(-1)
    return float(logits[range(len(tokens) - 1), tokens[1:]].sum())


@pytest.mark.parametrize("context", ["\n", " ", " \n ", ""])
@pytest.mark.parametrize("name", ["pocket-rwkv4", "pocket-pythia", "with BOS"])
def test_after_white_space_alone_every_token_is_scored(name: str, context: str, with_bos: LanguageModel) -> None:
    """The prefix token, here 0 as the BOS is, stands before them; OPT's tokenizer puts it there itself."""
    model = with_bos if name == "with BOS" else load(name)
    whole = model.codec.encode(context + BARREL)
    ((found, _),) = asked(model).score([(context, BARREL)])
    assert found == pytest.approx(likelihood(model, [0, *whole]), abs=1e-3)
    if context == "\n":
        assert len(whole) == 3
        first = likelihood(model, whole)  # what was scored without the first of the three
        assert found < first - 1


def test_a_continuation_that_begins_with_the_prefix_token_is_given_it_once(with_bos: LanguageModel) -> None:
    for model in (with_bos, load("pocket-pythia")):
        ours = asked(model)
        assert ours.pair("", END + BARREL) == ([0], model.codec.encode(BARREL))
        assert ours.pair(END + "The", BARREL) == (model.codec.encode(END + "The"), model.codec.encode(BARREL))
        with pytest.raises(BadInput, match="no tokens of its own"):
            ours.pair("", END)


def test_a_bos_is_cut_away_with_the_beginning(with_bos: LanguageModel) -> None:
    ours = asked(with_bos)
    ours.max_length = 8
    before, after = ours.pair("The barrel was here. " * 4, BARREL)
    request = ours._request(before, after)
    assert before[0] == 0 and 0 not in request.tokens and len(request.fed) == 8


def test_a_generated_text_goes_on_from_the_bos_and_ends_at_the_tokenizers_end(with_bos: LanguageModel) -> None:
    fed: list[list[int]] = []
    ours = asked(with_bos)
    hidden = with_bos.hidden
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            with_bos,
            "hidden",
            lambda tokens, *more, **kw: fed.append(tokens[0].tolist()) or hidden(tokens, *more, **kw),
        )
        ours.generate([("The barrel", {"until": [], "max_gen_toks": 4})])
    assert fed[0] == [0, *with_bos.codec.encode("The barrel")]


def test_needles_are_as_long_as_asked_for_with_a_bos(with_bos: LanguageModel) -> None:
    plain, _ = needles.run(load("pocket-opt"), device="cpu", task="pocket_passkey", length=64, docs=4)
    found, _ = needles.run(with_bos, device="cpu", task="pocket_passkey", length=64, docs=4)
    assert (plain["special_tokens"], found["special_tokens"]) == ([], [0])
    assert found["tokens"] < 64 and plain["tokens"] < 64
