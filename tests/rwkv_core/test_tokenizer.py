"""The BPE tokenizer beside a checkpoint; the real GPT-NeoX file where it is at hand."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from bench.peers import save_blinkdl
from rwkv_core import tokenizer
from rwkv_core.model import RWKV
from rwkv_core.spec import BadInput
from tests import parity

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "tokenizers" / "20B_tokenizer.json"


def test_a_tokenizer_beside_the_weights_is_used(tmp_path: Path) -> None:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=80, initial_alphabet=list("abcdefghij"), show_progress=False)
    made.train_from_iterator(["abc abd aab", "bad cab"], trainer)
    save_blinkdl(parity.make("tiny"), tmp_path / "m.pth")
    with pytest.raises(BadInput, match="no tokenizer"):
        RWKV.from_checkpoint(tmp_path / "m.pth").encode("abc")
    made.save(str(tmp_path / "20B_tokenizer.json"))
    assert RWKV.from_checkpoint(tmp_path / "m.pth").encode("abc abd") == made.encode("abc abd").ids
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(BadInput, match="not a tokenizer file"):
        tokenizer.find(tmp_path)


@pytest.mark.skipif(not REAL.is_file(), reason="the GPT-NeoX tokenizer is not at hand")
def test_the_real_gpt_neox_tokenizer() -> None:
    real = tokenizer.read(REAL)
    text = "In a shocking finding, 2 scientists\n\n  discovered naïve dragons 龙."
    ids = real.encode(text, add_special_tokens=False).ids
    assert real.decode(ids) == text and max(ids) < 50277
