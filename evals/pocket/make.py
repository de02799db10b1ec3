"""The pocket world's files: its tokenizer, and the twelve tasks' test items.

`python -m evals.pocket.make` writes both again: checkpoints/tokenizer.json and data/<task>/<split>.jsonl.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from evals.corpus import TRAINING_SEED
from evals.pocket import tasks, text
from evals.zeroshot.tasks import POCKET

TOKENIZER_FILE = Path(__file__).with_name("checkpoints") / "tokenizer.json"
VOCABULARY = 1536
PIECES = 40_000  # of training text that the tokenizer is made from
END = "<|endoftext|>"  # token 0


def tokenizer(path: Path = TOKENIZER_FILE) -> Path:
    """A byte-level BPE of the training text."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(itertools.islice(text.pieces(TRAINING_SEED), PIECES), trainer)
    path.parent.mkdir(parents=True, exist_ok=True)
    bpe.save(str(path))
    return path


if __name__ == "__main__":
    print(tokenizer())
    print(tasks.write(POCKET))
