"""Text to tokens and back: the tokenizer that goes with a checkpoint, or one file's.

A checkpoint's folder goes before the folder above it, which several may share. A folder in the hub's format is read by
transformers, as lm-eval does, since there the class decides what stands before a text; a lone tokenizer.json, or the
vocabulary of RWKV's World models, is read as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from rwkv_core import utf8, world
from rwkv_core.errors import BadInput
from rwkv_core.files import digest
from rwkv_core.spec import ModelSpec

FILES = ("tokenizer.json", "20B_tokenizer.json")
WHOLE = (*FILES, "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "tiktoken.model", "tekken.json")
PARTS = ("vocab.json", "merges.txt", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json")
NAMES = (*WHOLE, *PARTS, "added_tokens.json")


@dataclass(frozen=True)
class Codec:
    """Text to tokens and back. encode: of the text alone. with_special: with what the tokenizer puts around a text by
    default (a BOS, most often). spelled: a single token's text, special ones too. bos, eos: None where it names none.
    batch: of several texts, on all cores; None where that is no quicker. size: tokens of a lone file's tokenizer, or 0.
    """

    encode: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]
    with_special: Callable[[str], list[int]]
    spelled: Callable[[int], str]
    bos: int | None = None
    eos: int | None = None
    batch: Callable[[list[str]], list[list[int]]] | None = None
    size: int = 0

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Codec:
        """Of a tokenizer.json, whose post-processor is what lm-eval applies to it too."""
        return cls(
            lambda text: tokenizer.encode(text, add_special_tokens=False).ids,
            lambda tokens: tokenizer.decode(list(tokens)),
            lambda text: tokenizer.encode(text).ids,
            lambda token: tokenizer.decode([token], skip_special_tokens=False),
            batch=lambda texts: [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)],
            size=tokenizer.get_vocab_size(),
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

    @classmethod
    def of_world(cls, tokens: Sequence[bytes]) -> Codec:
        """Of a World vocabulary, a token's bytes by its id. Token 0 ends a text. There is no BOS: what stands before a
        text is a rule of a measurement (its author's have token 0, a line feed or nothing). Tokens without text, 0 and
        the last of the head, are decoded to nothing, and what is no character to U+FFFD.
        """
        matcher = world.matcher(tokens)

        def batch(texts: list[str]) -> list[list[int]]:
            try:
                as_bytes = [text.encode().decode("latin-1") for text in texts]
            except UnicodeEncodeError as error:
                raise BadInput(f"a text has half a character, which UTF-8 does not know ({error.reason})") from error
            return [encoded.ids for encoded in matcher.encode_batch_fast(as_bytes)]

        def encode(text: str) -> list[int]:
            return batch([text])[0]  # which counts no characters, and takes half the time

        def decode(ids: Sequence[int]) -> str:
            return b"".join(tokens[i] for i in ids if i < len(tokens)).decode(errors="replace")

        return cls(encode, decode, encode, lambda i: decode([i]), eos=world.END, batch=batch, size=len(tokens))

    def encode_all(self, texts: list[str]) -> list[list[int]]:
        """The tokens of each text alone."""
        return self.batch(texts) if self.batch else [self.encode(text) for text in texts]

    def within(self, vocabulary: int) -> Codec:
        """The same, raising BadInput for a text with a token that a model of that vocabulary does not have."""

        def checked(tokens: list[int]) -> list[int]:
            if tokens and max(tokens) >= vocabulary:
                raise BadInput(
                    f"the tokenizer gives {self.spelled(max(tokens))!r} the token {max(tokens)}, and the model's "
                    f"vocabulary ends at {vocabulary - 1}; is it this model's tokenizer?"
                )
            return tokens

        return replace(
            self,
            encode=lambda text: checked(self.encode(text)),
            with_special=lambda text: checked(self.with_special(text)),
            batch=lambda texts: [checked(tokens) for tokens in self.encode_all(texts)],
        )

    def check(self, texts: Sequence[str]) -> None:
        """Raises BadInput where a character of the texts has no tokens. (A space alone may be decoded to nothing.)"""
        for character in sorted(set().union(*texts)):
            tokens = self.encode(character)
            unknown = not character.isspace() and self.decode(tokens) in ("", "\ufffd") and character != "\ufffd"
            if not tokens or unknown:
                raise BadInput(f"the tokenizer has nothing for the character {character!r} (U+{ord(character):04X})")


def of_file(path: Path) -> Codec:
    """The codec of a lone file, a tokenizer.json or a World vocabulary. Raises BadInput where it is neither."""
    return Codec.of_world(world.read(path)) if world.is_vocabulary(path) else Codec.of(read(path))


def content(path: Path) -> str:
    """SHA-256 of a tokenizer's file. A World vocabulary is the same however its lines end: the author's package has it
    with CR LF, his repositories with LF. Raises BadInput where it is no text.
    """
    return hashlib.sha256(utf8.read(path).encode()).hexdigest() if world.is_vocabulary(path) else digest(path)


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


def files(checkpoint: Path, vocabulary: int) -> list[Path]:
    """The tokenizer's files that go with a checkpoint: all of its folder, or else one of the folder above. vocabulary:
    the model's size of it. A World vocabulary goes with a model that has room for it, and with any where it lies alone.
    """
    return _beside(folder := place(checkpoint, vocabulary), vocabulary) or _above(folder, vocabulary)


def place(checkpoint: Path, vocabulary: int) -> Path:
    """The folder whose tokenizer goes with a checkpoint, or that above it: the checkpoint's, or, where it is a link and
    has none there, that of the file or folder to which the link leads.
    """
    places = [path if path.is_dir() else path.parent for path in (checkpoint, checkpoint.resolve())]
    lookups = (_beside, _above)
    return next((folder for lookup in lookups for folder in places if lookup(folder, vocabulary)), places[0])


def _beside(folder: Path, vocabulary: int) -> list[Path]:
    return _lying(folder, NAMES, vocabulary)


def _above(folder: Path, vocabulary: int) -> list[Path]:
    return _lying(folder.parent, FILES, vocabulary)[:1]


def _lying(folder: Path, names: Sequence[str], vocabulary: int) -> list[Path]:
    others = [folder / name for name in names if (folder / name).is_file()]
    alone = vocabulary > world.TOKENS or not others
    return [folder / world.NAME] if alone and (folder / world.NAME).is_file() else others


def source(checkpoint: Path | None, spec: ModelSpec) -> Path:
    """What the tokenizer that goes with a checkpoint is read from: a lone file, as it is, or a folder, by transformers.
    Raises BadInput where there is none, or only a part of one, or RWKV's as code. checkpoint: None for weights that
    came from none.
    """
    if checkpoint is None:
        raise BadInput(f"{spec.name} has random weights and so no tokenizer; use pretrained or local weights")
    paths, folder = files(checkpoint, spec.vocab_size), place(checkpoint, spec.vocab_size)
    names = {path.name for path in paths}
    if not paths:
        raise BadInput(
            f"{spec.name}: no tokenizer; put {', '.join(FILES)} or {world.NAME} beside its weights ({checkpoint})"
        )
    if paths[0].parent != folder or names == {world.NAME}:
        return paths[0]
    if _is_world_code(folder / "tokenizer_config.json"):
        raise BadInput(f"{folder}: RWKV's World tokenizer as code, which is never run; put {world.NAME} beside it")
    if not names & {*WHOLE, "vocab.txt"} and not names >= {"vocab.json", "merges.txt"}:
        raise BadInput(f"{folder}: only a part of a tokenizer ({', '.join(sorted(names))}); put the others beside it")
    in_format = checkpoint.is_dir() and (folder / "config.json").is_file()
    return paths[0] if names == {"20B_tokenizer.json"} or (names & {*FILES} and not in_format) else folder


def _is_world_code(path: Path) -> bool:
    """Whether a tokenizer_config.json names a class of the RWKV repositories, whose code does not match the longest
    token from the left of the text as it is, but word by word.
    """
    try:
        config = json.loads(path.read_bytes())
        return "rwkv" in f"{config.get('tokenizer_class')} {config.get('auto_map')}".lower()
    except (OSError, ValueError, AttributeError):  # transformers says what is wrong with it
        return False


def find(checkpoint: Path | None, spec: ModelSpec) -> Codec:
    """The codec that goes with a checkpoint. Raises BadInput as `source` does, and where the one in the folder above
    does not fit the model's vocabulary.
    """
    path = source(checkpoint, spec)
    if path.is_dir():
        return published(str(path))
    codec = of_file(path)
    above = checkpoint is not None and path.parent != place(checkpoint, spec.vocab_size)
    if above and codec.size > spec.vocab_size:
        raise BadInput(
            f"{path}: {codec.size:,} tokens, and {spec.name} has {spec.vocab_size:,}; put its own tokenizer "
            f"beside the weights ({checkpoint})"
        )
    return codec


def published(source: str, revision: str | None = None) -> Codec:
    """The codec of a folder in the hub's format, or of a repository at its revision. Raises BadInput."""
    from transformers import AutoTokenizer  # here, because transformers takes seconds to import

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
    except Exception as error:  # of transformers, tokenizers and the hub's client
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        mend = f"give its tokenizer.json, or {world.NAME} of a World model, as --tokenizer"
        raise BadInput(f"{source}: no tokenizer that transformers can read ({first}); {mend}") from error
    if isinstance(backend := getattr(tokenizer, "backend_tokenizer", None), Tokenizer):
        forget_training(backend, source)
    return Codec.of_transformers(tokenizer)
