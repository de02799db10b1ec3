"""Small model folders in the hub's format, each family with its own kind of tokenizer; made on the spot, for checks."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, LlamaTokenizer

from evals.pocket import text as pocket
from rwkv_core.spec import ModelSpec

VOCABULARY = 800
WINDOW = 512
PIECES = 2000  # of the pocket world, that tokenizers are trained on
SHARPER = 4  # times the random weights, so that answers differ from chance
WIDTH = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
SHAPES: dict[str, dict[str, Any]] = {
    "opt": {"ffn_dim": 128, "word_embed_proj_dim": 64, "max_position_embeddings": WINDOW, **WIDTH}
    | {"bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1},
    "bloom": {"hidden_size": 64, "n_head": 4, "n_layer": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3},
    "llama": {"intermediate_size": 128, **WIDTH, "bos_token_id": 1, "eos_token_id": 2},
    "gpt_neox": {"intermediate_size": 128, **WIDTH, "bos_token_id": 0, "eos_token_id": 0},
    "rwkv": {"hidden_size": 64, "num_hidden_layers": 2, "context_length": WINDOW, "bos_token_id": 0, "eos_token_id": 0},
}


def folder(name: str, place: Path) -> ModelSpec:
    """A model of an architecture with random weights and its tokenizer below `place`; what loads it."""
    path = place / name
    config = AutoConfig.for_model(name, vocab_size=VOCABULARY, **SHAPES[name])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(SHARPER if p.dim() == 2 else 1)
    model.save_pretrained(path)
    TOKENIZERS[name](path)
    architecture = {"model_type": name, "vocab_size": VOCABULARY, **SHAPES[name]}
    family = "rwkv4" if name == "rwkv" else name
    return ModelSpec(name, family, architecture, context_length=WINDOW, weights=str(path), label=f"{name}, own")


def _trained(tokenizer: Tokenizer, special: list[str], alphabet: list[str]) -> Tokenizer:
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_text(), trainer)
    return tokenizer


def _text() -> Iterator[str]:
    return itertools.islice(pocket.pieces(0), PIECES)


def _byte_level(special: list[str]) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return _trained(made, special, sorted(pre_tokenizers.ByteLevel.alphabet()))


def _configure(path: Path, **config: Any) -> None:
    (path / "tokenizer_config.json").write_text(json.dumps(config))


def _opt(path: Path) -> None:
    """GPT2Tokenizer over vocab.json and merges.txt, its BOS before every text."""
    made = json.loads(_byte_level(["<s>", "<pad>", "</s>", "<unk>"]).to_str())["model"]
    (path / "vocab.json").write_text(json.dumps(made["vocab"]))
    (path / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, made["merges"])]) + "\n")
    names = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
    _configure(
        path, tokenizer_class="GPT2Tokenizer", add_bos_token=True, add_prefix_space=False, errors="replace", **names
    )


def _bloom(path: Path) -> None:
    """A tokenizer.json with its own pre-tokenizer; it names a BOS and puts none."""
    made = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(r" ?[^(\s|[.,!?…。，、।۔،])]+"), "isolated")  # noqa: RUF001
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    _trained(made, ["<unk>", "<s>", "</s>", "<pad>"], sorted(pre_tokenizers.ByteLevel.alphabet()))
    made.save(str(path / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    _configure(path, tokenizer_class="BloomTokenizerFast", clean_up_tokenization_spaces=False, **names)


def _llama(path: Path) -> None:
    """SentencePiece's kind: a space in front, bytes for what is unknown, a BOS by the post-processor."""
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    _trained(made, ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))], [])
    state = json.loads(made.to_str())["model"]
    LlamaTokenizer(state["vocab"], [tuple(pair) for pair in state["merges"]], add_bos_token=True).save_pretrained(path)


def _gpt_neox(path: Path) -> None:
    """A tokenizer.json that puts nothing before a text."""
    made = _byte_level(["<|endoftext|>", "<|padding|>"])
    made.normalizer = normalizers.NFC()
    made.post_processor = processors.ByteLevel(trim_offsets=True)
    made.save(str(path / "tokenizer.json"))
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    _configure(path, tokenizer_class="GPTNeoXTokenizer", add_prefix_space=False, **names)


TOKENIZERS: dict[str, Callable[[Path], None]] = {
    "opt": _opt,
    "bloom": _bloom,
    "llama": _llama,
    "gpt_neox": _gpt_neox,
    "rwkv": _gpt_neox,
}
