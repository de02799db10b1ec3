"""Text to tokens and back: the tokenizer that goes with a checkpoint, or one file's.

A checkpoint's folder goes before the folder above it, which several may share. A folder in the hub's format is read by
transformers, as lm-eval does, since there the class decides what stands before a text; a lone tokenizer.json is read
as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from rwkv_core import utf8
from rwkv_core.errors import BadInput
from rwkv_core.spec import ModelSpec

FILES = ("tokenizer.json", "20B_tokenizer.json")
WHOLE = (*FILES, "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "tiktoken.model", "tekken.json")
PARTS = ("vocab.json", "merges.txt", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json")
NAMES = (*WHOLE, *PARTS, "added_tokens.json")


@dataclass(frozen=True)
class Codec:
    """Text to tokens and back. encode: of the text alone. with_special: with what the tokenizer puts around a text by
    default (a BOS, most often). spelled: a single token's text, special ones too. bos, eos: None where it names none.
    """

    encode: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]
    with_special: Callable[[str], list[int]]
    spelled: Callable[[int], str]
    bos: int | None = None
    eos: int | None = None

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Codec:
        """Of a tokenizer.json, whose post-processor is what lm-eval applies to it too."""
        return cls(
            lambda text: tokenizer.encode(text, add_special_tokens=False).ids,
            lambda tokens: tokenizer.decode(list(tokens)),
            lambda text: tokenizer.encode(text).ids,
            lambda token: tokenizer.decode([token], skip_special_tokens=False),
        )

    @classmethod
    def of_transformers(cls, tokenizer: Any) -> Codec:
        """Of a tokenizer of transformers."""
        return cls(
            lambda text: tokenizer.encode(text, add_special_tokens=False),
            lambda tokens: tokenizer.decode(list(tokens), skip_special_tokens=True),
            lambda text: tokenizer.encode(text),
            lambda token: tokenizer.decode([token]),
            tokenizer.bos_token_id,
            tokenizer.eos_token_id,
        )

    def within(self, vocabulary: int) -> Codec:
        """The same, raising BadInput for a text with a token that a model of that vocabulary does not have."""

        def checked(encode: Callable[[str], list[int]]) -> Callable[[str], list[int]]:
            def encoded(text: str) -> list[int]:
                tokens = encode(text)
                if tokens and max(tokens) >= vocabulary:
                    raise BadInput(
                        f"the tokenizer gives {self.spelled(max(tokens))!r} the token {max(tokens)}, and the model's "
                        f"vocabulary ends at {vocabulary - 1}; is it this model's tokenizer?"
                    )
                return tokens

            return encoded

        return replace(self, encode=checked(self.encode), with_special=checked(self.with_special))

    def check(self, texts: Sequence[str]) -> None:
        """Raises BadInput where a character of the texts has no tokens. (A space alone may be decoded to nothing.)"""
        for character in sorted(set().union(*texts)):
            tokens = self.encode(character)
            unknown = not character.isspace() and self.decode(tokens) in ("", "\ufffd") and character != "\ufffd"
            if not tokens or unknown:
                raise BadInput(f"the tokenizer has nothing for the character {character!r} (U+{ord(character):04X})")


def read(path: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json. Raises BadInput where the file is not one."""
    try:
        tokenizer = Tokenizer.from_str(utf8.read(path))
    except BadInput:
        raise
    except Exception as error:  # `tokenizers` raises bare Exception for every fault of a file
        raise BadInput(f"{path}: not a tokenizer file ({error}); download it again") from error
    return forget_training(tokenizer, str(path))


def forget_training(tokenizer: Tokenizer, source: str) -> Tokenizer:
    """The same without what its file remembers of a training run: truncation, padding, random merges. Raises BadInput
    where it stays random.
    """
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for name in ("dropout", "alpha", "nbest_size"):  # of BPE, of Unigram
        if getattr(tokenizer.model, name, None):
            setattr(tokenizer.model, name, None)
            if getattr(tokenizer.model, name):
                raise BadInput(f"{source}: it tokenizes at random ({name}); remove that from the file")
    return tokenizer


def files(checkpoint: Path) -> list[Path]:
    """The tokenizer's files that go with a checkpoint: all of its folder, or else one of the folder above."""
    return _beside(folder := place(checkpoint)) or _above(folder)


def place(checkpoint: Path) -> Path:
    """The folder whose tokenizer goes with a checkpoint, or that above it: the checkpoint's, or, where it is a link and
    has none there, that of the file or folder to which the link leads.
    """
    places = [path if path.is_dir() else path.parent for path in (checkpoint, checkpoint.resolve())]
    return next((folder for lookup in (_beside, _above) for folder in places if lookup(folder)), places[0])


def _beside(folder: Path) -> list[Path]:
    return [folder / name for name in NAMES if (folder / name).is_file()]


def _above(folder: Path) -> list[Path]:
    return [folder.parent / name for name in FILES if (folder.parent / name).is_file()][:1]


def source(checkpoint: Path | None, spec: ModelSpec) -> Path:
    """What the tokenizer that goes with a checkpoint is read from: a tokenizer.json, as it is, or a folder, by
    transformers. Raises BadInput where there is none, or only a part of one. checkpoint: None for weights that came
    from none.
    """
    if checkpoint is None:
        raise BadInput(f"{spec.name} has random weights and so no tokenizer; use pretrained or local weights")
    paths, folder = files(checkpoint), place(checkpoint)
    names = {path.name for path in paths}
    if not paths:
        raise BadInput(f"{spec.name}: no tokenizer; put {' or '.join(FILES)} beside its weights ({checkpoint})")
    if paths[0].parent != folder:
        return paths[0]
    if not names & {*WHOLE, "vocab.txt"} and not names >= {"vocab.json", "merges.txt"}:
        raise BadInput(f"{folder}: only a part of a tokenizer ({', '.join(sorted(names))}); put the others beside it")
    in_format = checkpoint.is_dir() and (folder / "config.json").is_file()
    return paths[0] if names == {"20B_tokenizer.json"} or (names & {*FILES} and not in_format) else folder


def find(checkpoint: Path | None, spec: ModelSpec) -> Codec:
    """The codec that goes with a checkpoint. Raises BadInput as `source` does, and where the one in the folder above
    does not fit the model's vocabulary.
    """
    path = source(checkpoint, spec)
    if path.is_dir():
        return published(str(path))
    tokenizer, above = read(path), checkpoint is not None and path.parent != place(checkpoint)
    if above and (size := tokenizer.get_vocab_size()) > spec.vocab_size:
        raise BadInput(
            f"{path}: {size:,} tokens, and {spec.name} has {spec.vocab_size:,}; put its own tokenizer "
            f"beside the weights ({checkpoint})"
        )
    return Codec.of(tokenizer)


def published(source: str, revision: str | None = None) -> Codec:
    """The codec of a folder in the hub's format, or of a repository at its revision. Raises BadInput."""
    from transformers import AutoTokenizer  # here, because transformers takes seconds to import

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
    except Exception as error:  # of transformers, tokenizers and the hub's client
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        mend = "give its tokenizer.json as --tokenizer"
        raise BadInput(f"{source}: no tokenizer that transformers can read ({first}); {mend}") from error
    if isinstance(backend := getattr(tokenizer, "backend_tokenizer", None), Tokenizer):
        forget_training(backend, source)
    return Codec.of_transformers(tokenizer)
