"""The BPE tokenizer beside a checkpoint; the real GPT-NeoX file where it is at hand."""

import codecs
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from evals.language import corpus
from rwkv_core import text
from rwkv_core.errors import BadInput
from rwkv_core.rwkv.checkpoint import save_pth
from rwkv_core.rwkv.model import RWKV
from rwkv_core.spec import ModelSpec
from tests.checks import parity

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "tokenizers" / "20B_tokenizer.json"


TEXT = "abc abd aab bad"
SPEC = ModelSpec("small", "rwkv4", {"model_type": "rwkv", "vocab_size": 80})


@pytest.fixture(scope="module")
def made() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=80, special_tokens=["</s>"], initial_alphabet=list("abcdefghij"), show_progress=False
    )
    made.train_from_iterator(["abc abd aab", "bad cab"], trainer)
    return made


def parts(made: Tokenizer, folder: Path) -> None:
    """The same tokenizer as vocab.json and merges.txt, and what transformers asks of a folder."""
    folder.mkdir(exist_ok=True)
    model = json.loads(made.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, model["merges"])]))
    (folder / "config.json").write_text('{"model_type": "opt"}')


def foreign(made: Tokenizer, size: int | None = None) -> str:
    """The same words under other numbers, and more of them."""
    state = json.loads(made.to_str())
    words = list(reversed(state["model"]["vocab"]))
    words += [f"more{i}" for i in range((size or len(words)) - len(words))]
    state["model"]["vocab"] = {word: i for i, word in enumerate(words)}
    state["added_tokens"] = []
    return json.dumps(state)


def test_a_tokenizer_beside_the_weights_is_used(tmp_path: Path, made: Tokenizer) -> None:
    save_pth(parity.make("tiny").state_dict(), tmp_path / "m.pth")
    with pytest.raises(BadInput, match="no tokenizer"):
        RWKV.from_checkpoint(tmp_path / "m.pth").codec  # noqa: B018
    made.save(str(tmp_path / "20B_tokenizer.json"))
    assert RWKV.from_checkpoint(tmp_path / "m.pth").codec.encode(TEXT) == made.encode(TEXT).ids
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(BadInput, match="not a tokenizer file"):
        text.find(tmp_path, SPEC)


@pytest.mark.parametrize("name", ["tokenizer.json", "20B_tokenizer.json"])
def test_a_folders_own_tokenizer_goes_before_one_above_it(tmp_path: Path, made: Tokenizer, name: str) -> None:
    own = tmp_path / "own"
    parts(made, own)
    (tmp_path / name).write_text(foreign(made))
    assert text.find(own, SPEC).encode(TEXT) == made.encode(TEXT).ids
    (own / "merges.txt").unlink()
    with pytest.raises(BadInput, match=r"only a part of a tokenizer \(vocab.json\)"):
        text.find(own, SPEC)
    (own / "vocab.json").unlink()
    (own / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    with pytest.raises(BadInput, match=r"only a part of a tokenizer \(tokenizer_config.json\)"):
        text.find(own, SPEC)
    (own / "tokenizer_config.json").unlink()
    above = Tokenizer.from_str(foreign(made)).encode(TEXT).ids
    assert text.find(own, SPEC).encode(TEXT) == above != made.encode(TEXT).ids
    (tmp_path / name).write_text(foreign(made, 81))
    with pytest.raises(BadInput, match=rf"{name}: 81 tokens, and small has 80; put its own tokenizer beside"):
        text.find(own, SPEC)


def test_a_file_is_utf8_with_or_without_a_mark(tmp_path: Path, made: Tokenizer) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(codecs.BOM_UTF8 + made.to_str().encode())
    assert text.read(path).encode(TEXT).ids == made.encode(TEXT).ids
    path.write_bytes(made.to_str().replace("a", "\u00e9").encode("latin-1", errors="replace"))
    with pytest.raises(BadInput, match=r"tokenizer.json: not UTF-8 text \(.* at byte \d+\)"):
        text.read(path)
    with pytest.raises(BadInput, match=r"absent.json: not a tokenizer file \(.*No such file"):
        text.read(tmp_path / "absent.json")


def test_what_transformers_cannot_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"no model")
    with pytest.raises(BadInput, match=r"no tokenizer that transformers can read \(.*\); give its tokenizer") as raised:
        text.find(tmp_path, SPEC)
    assert "\n" not in str(raised.value)


def test_a_tokenizer_may_not_bring_code(tmp_path: Path, made: Tokenizer) -> None:
    parts(made, tmp_path)
    remote = {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(remote))
    (tmp_path / "mine.py").write_text("import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n")
    with pytest.raises(BadInput, match="no tokenizer that transformers can read"):
        text.find(tmp_path, SPEC)
    assert not (tmp_path / "ran").exists()


REMEMBERED = {
    "truncation": {"truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}},
    "padding": {
        "padding": {
            "strategy": {"Fixed": 16},
            "direction": "Left",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "</s>",
        }
    },
    "dropout": {"model": {"dropout": 0.9}},
}


@pytest.mark.parametrize("what", REMEMBERED)
@pytest.mark.parametrize("where", ["file", "folder above", "a folder of transformers", "OPT's folder"])
def test_what_a_file_remembers_of_a_training_is_forgotten(
    tmp_path: Path, made: Tokenizer, what: str, where: str
) -> None:
    state = json.loads(made.to_str())
    for key, value in REMEMBERED[what].items():
        state[key] = {**state[key], **value} if key == "model" else value
    folder = tmp_path / "model"
    folder.mkdir()
    path = (tmp_path if where == "folder above" else folder) / "tokenizer.json"
    path.write_text(json.dumps(state))
    if "folder of transformers" in where or "OPT" in where:
        kind = "opt" if "OPT" in where else "bloom"
        (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    codec = text.Codec.of(text.read(path)) if where == "file" else text.find(folder, SPEC)
    for encode in (codec.encode, codec.with_special):
        assert [encode(TEXT) for _ in range(5)] == [made.encode(TEXT).ids] * 5


def test_padding_does_not_reach_a_corpus(tmp_path: Path, made: Tokenizer) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(made.to_str()), **REMEMBERED["padding"]}))
    model = parity.make("tiny")
    model.spec = SPEC
    encode, _ = corpus.codec(model, str(path))
    assert encode(["abc", "abd aab"]) == [made.encode("abc").ids, made.encode("abd aab").ids]


@pytest.mark.skipif(not REAL.is_file(), reason="the GPT-NeoX tokenizer is not at hand")
def test_the_real_gpt_neox_tokenizer() -> None:
    real = text.read(REAL)
    passage = "In a shocking finding, 2 scientists\n\n  discovered naïve dragons 龙."
    ids = real.encode(passage, add_special_tokens=False).ids
    assert real.decode(ids) == passage and max(ids) < 50277
