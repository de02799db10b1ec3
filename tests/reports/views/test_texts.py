"""The texts that configs/texts lists are those that records name, divided as the corpus divides them."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import configs
from evals import identity
from evals.language import corpus
from reports.views import texts
from rwkv_core.files import SHORT, together

LISTS = configs.read("texts")


def listed(entry: dict[str, Any]) -> pd.DataFrame:
    return pd.read_csv(configs.ROOT / "texts" / entry["files"])


@pytest.mark.parametrize("entry", LISTS.values(), ids=list(LISTS))
def test_a_list_has_the_fingerprint_of_its_files(entry: dict[str, Any]) -> None:
    files = listed(entry)
    assert files.file.is_monotonic_increasing and (files.sha256.str.len() == 64).all()
    assert together(files.sha256.str[:SHORT]) == entry["fingerprint"]
    assert identity.tokenizer("pocket", {})[0] == f"file:{entry['tokenizer']}"


@pytest.mark.parametrize("entry", LISTS.values(), ids=list(LISTS))
def test_a_list_says_what_is_held_out_and_in_which_order_training_reads(entry: dict[str, Any], tmp_path: Path) -> None:
    files = listed(entry)
    for name in files.file:
        (tmp_path / name).write_text("x", encoding="utf-8")
    held_out, training = ([path.name for path in corpus._files_of_part(str(tmp_path), part)] for part in (True, False))
    assert files[files.training == texts.HELD_OUT].file.tolist() == held_out
    of_training = files[files.training != texts.HELD_OUT]
    assert of_training.file.iloc[of_training.training.astype(int).argsort()].tolist() == training


def rows(tokens: int, text: str = "local:88ad8a759e96", tokenizer: str = "file:74d3144282bd") -> pd.DataFrame:
    return pd.DataFrame([{"text": text, "tokenizer": tokenizer, "text_tokens": tokens}])


@pytest.mark.parametrize(("tokens", "place"), [(1, 1), (575_219, 1), (575_220, 2), (4_096_000, 9), (10**9, 90)])
def test_a_known_text_is_named_and_how_far_training_read_it(tokens: int, place: int) -> None:
    (sentence,) = texts.lines(rows(tokens))
    assert "100 files configs/texts/novels.csv lists; 10 of them are held out" in sentence
    assert sentence.endswith(f"{tokens:,} tokens, the most here, end in number {place} of 90.")


def test_nothing_is_said_of_an_unknown_text_or_of_tokens_of_another_tokenizer() -> None:
    assert texts.lines(rows(1, text="local:0123456789ab")) == []
    for part in (rows(1, tokenizer="own"), rows(1)[["text"]]):
        (sentence,) = texts.lines(part)
        assert sentence.endswith("are held out.")
