"""The GPT-NeoX BPE tokenizer of the RWKV-4 Pile models and Pythia, through `tokenizers`."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from rwkv_core.spec import BadInput, ModelSpec

FILES = ("tokenizer.json", "20B_tokenizer.json")

__all__ = ["Tokenizer", "find", "read", "require"]


def read(path: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json. Raises BadInput where the file is not one."""
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # `tokenizers` raises bare Exception for every fault of a file
        raise BadInput(f"{path}: not a tokenizer file ({error}); download it again") from error


def find(checkpoint: Path) -> Tokenizer | None:
    """The tokenizer that lies in a checkpoint's folder or in the one above, which several may share; or None."""
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    places = [place / name for place in (folder, folder.parent) for name in FILES]
    return next((read(path) for path in places if path.is_file()), None)


def require(found: Tokenizer | None, spec: ModelSpec) -> Tokenizer:
    """`found`, or one clear line about how to provide it."""
    if found is None:
        raise BadInput(f"{spec.name}: no tokenizer; put {' or '.join(FILES)} beside its weights ({spec.weights})")
    return found
