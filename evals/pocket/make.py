"""The pocket world's files: its tokenizer, and the twelve tasks' test items.

`python -m evals.pocket.make` writes both again: checkpoints/tokenizer.json and data/<task>/<split>.jsonl.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from evals.identity import POCKET_TOKENIZER as TOKENIZER_FILE
from evals.language.corpus import TRAINING_SEED
from evals.pocket import tasks, text
from evals.zeroshot.tasks import POCKET

VOCABULARY = 1536
PIECES = 40_000  # of training text that the tokenizer is made from
END = "<|endoftext|>"  # token 0


def tokenizer(path: Path = TOKENIZER_FILE) -> Path:
    """The tokenizer of the training text."""
    return bpe(itertools.islice(text.pieces(TRAINING_SEED), PIECES), VOCABULARY, path)


def bpe(texts: Iterable[str], vocabulary: int, path: Path) -> Path:
    """A byte-level BPE of the texts, written to `path`."""
    byte_level = Tokenizer(models.BPE())
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_level.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    byte_level.train_from_iterator(texts, trainer)
    path.parent.mkdir(parents=True, exist_ok=True)
    byte_level.save(str(path))
    return path


if __name__ == "__main__":
    print(tokenizer())
    print(tasks.write(POCKET))
