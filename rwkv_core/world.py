"""The tokenizer of RWKV's World models: the longest token of a vocabulary at each place of a text's UTF-8 bytes.

Nothing is normalised, nothing stands before a text, and a token may be a part of a character. Source: the vocabulary
and `rwkv_tokenizer.py` of the author's package `rwkv`.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel

from rwkv_core import utf8
from rwkv_core.errors import BadInput

NAME = "rwkv_vocab_v20230424.txt"
PATTERN = "rwkv_vocab*.txt"  # of files that are one
TOKENS = 65_529  # lines of the file of that name; a model's head has 65,536 rows
END = 0  # ends a text; the file, whose ids begin at 1, does not have it
MEND = f"download {NAME} again"


def is_vocabulary(path: Path) -> bool:
    """Whether a tokenizer's file is a World vocabulary, which its name says."""
    return path.match(PATTERN)


def read(path: Path) -> list[bytes]:
    """The bytes of each token, by id; none of 0. A line of the file is `ID LITERAL LENGTH`: ids from 1 on, Python's str
    or bytes, the number of its bytes. Raises BadInput naming the first line that is not so.
    """
    ids: dict[bytes, int] = {}
    try:
        for number, line in enumerate(utf8.lines(path), 1):
            token = _token(line, number)
            if ids.setdefault(token, number) != number:
                raise BadInput(f"{path}: line {number}: {token!r} is the token {ids[token]} already; {MEND}")
    except OSError as error:
        raise BadInput(f"{path}: not a tokenizer file ({error.strerror}); {MEND}") from error
    except ValueError as error:
        raise BadInput(f"{path}: line {len(ids) + 1}: {error}; {MEND}") from error
    if path.name == NAME and len(ids) != TOKENS:
        raise BadInput(f"{path}: {len(ids):,} lines, where the whole file has {TOKENS:,}; {MEND}")
    if missing := [byte for byte in range(256) if bytes([byte]) not in ids]:
        raise BadInput(f"{path}: no token for the byte {missing[0]}, so that not every text has tokens; {MEND}")
    return [b"", *ids]


def _token(line: str, number: int) -> bytes:
    """The token of a line of that number. Raises ValueError saying what is wrong."""
    start, _, rest = line.partition(" ")
    literal, _, length = rest.rpartition(" ")
    try:
        value = ast.literal_eval(literal)
        token = value.encode() if isinstance(value, str) else value
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        token = None
    if not isinstance(token, bytes):
        raise ValueError("not `ID LITERAL LENGTH` with a str or bytes of Python")
    if start != str(number):
        raise ValueError(f"the id {start}, where {number} follows")
    if not token or length != str(len(token)):
        raise ValueError(f"{len(token)} bytes, and its length says {length}")
    return token


def matcher(tokens: Sequence[bytes]) -> Tokenizer:
    """What finds the longest token again and again, in bytes that were decoded as Latin-1, a character each.

    They are added tokens, which `tokenizers` looks for first, the longest at each place; its model is never asked.
    """
    vocabulary = {token.decode("latin-1"): i for i, token in enumerate(tokens) if token}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=next(iter(vocabulary))))
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in vocabulary])
    return tokenizer
