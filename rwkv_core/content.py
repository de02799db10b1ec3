"""What stands for a model's weights, on disk or on the hub: their content, since what a name stands for can change."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import re
from pathlib import Path

from rwkv_core import text
from rwkv_core.errors import BadInput
from rwkv_core.files import digest, together
from rwkv_core.models import local
from rwkv_core.spec import ModelSpec
from rwkv_core.weights import FOLDER_FILES

CONFIGS = ("config.json", "generation_config.json", "adapter_config.json")
ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
HUB_SECONDS = 5.0  # for an answer


def checkpoint(path: Path, vocabulary: int) -> str:
    """Of what loading a checkpoint reads: weights, configuration, and the tokenizer that goes with them; wherever it
    lies. vocabulary: the model's size of it. Raises BadInput where there is no such file or folder.
    """
    if not path.exists():
        raise BadInput(f"{path}: no such checkpoint file or folder")
    parts = [("weights", path)] if path.is_file() else [(p.name, p) for p in _of_folder(path)]
    beside = text.place(path, vocabulary)  # a tokenizer of the folder above is read in another way
    contents = [f"{name} {digest(p)}" for name, p in parts]
    for p in text.files(path, vocabulary):
        contents.append(f"{p.name if p.parent == beside else f'../{p.name}'} {text.content(p)}")
    return together(contents)


def _of_folder(path: Path) -> list[Path]:
    first = next((path / name for name in FOLDER_FILES if (path / name).is_file()), None)
    names = {*CONFIGS, *ADAPTERS, *([first.name] if first else [])}
    if first and first.name.endswith(".index.json"):
        with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError):  # loading it says what is wrong
            names |= set(json.loads(first.read_bytes())["weight_map"].values())
    return sorted(path / name for name in names if isinstance(name, str) and (path / name).is_file())


def identified(spec: ModelSpec) -> tuple[ModelSpec, str]:
    """The spec with its content in place of what could change under its name, and where on this machine a path leads:
    weights file:CONTENT for a path, revision content:CONTENT for a model of this package, a commit for a branch or tag
    of the hub. Raises BadInput where a path leads nowhere.
    """
    if spec.seed is not None:
        return spec, ""
    if spec.weights != "pretrained":
        path = Path(spec.weights).expanduser().absolute()
        return dataclasses.replace(spec, weights=f"file:{checkpoint(path, spec.vocab_size)}"), str(path)
    place = local(spec)
    if place is None:
        return dataclasses.replace(spec, revision=commit(spec.hub[0], spec.revision)), ""
    return dataclasses.replace(spec, revision=f"content:{checkpoint(place, spec.vocab_size)}"), ""


@functools.cache
def commit(repo: str, revision: str, kind: str = "model") -> str:
    """The commit that a branch or tag of a hub repository stands for, by the hub or else its cache; or the name itself,
    where neither knows. kind: model or dataset.
    """
    if re.fullmatch("[0-9a-f]{40}", revision):
        return revision
    return _of_hub(repo, revision, kind) or _of_cache(repo, revision, kind) or revision


def _of_hub(repo: str, revision: str, kind: str) -> str | None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    if _unreachable:
        return None
    try:
        return HfApi().repo_info(repo, revision=revision, repo_type=kind, timeout=HUB_SECONDS).sha
    except HfHubHTTPError:  # it has answered: of this repository it tells nothing
        return None
    except Exception as error:  # offline, by choice or not: the client has many errors
        _unreachable.append(error)
        return None


_unreachable: list[Exception] = []  # the first failure to reach the hub, after which it is not asked again


def _of_cache(repo: str, revision: str, kind: str) -> str | None:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    path = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type=kind), "refs", revision)
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None
