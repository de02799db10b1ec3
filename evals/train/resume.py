"""What a training leaves in its folder and goes on from. Each file is written whole or not at all."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from evals.train.recipe import Recipe
from rwkv_core.errors import BadInput

STATE = "state.pt"  # weights, optimizer, recipe, and how many steps are done
LOG = "log.jsonl"  # a line a step
BEST = "best.pt"  # the weights with the best score, of a training that is evaluated


def save_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe, done: int) -> None:
    """Write what a training goes on from after `done` steps."""
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "recipe": asdict(recipe), "done": done}
    with _whole(folder / STATE) as path:
        torch.save(state, path)


def load_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe) -> int:
    """How many steps are done; weights and optimizer are put back as they were then. Raises BadInput where the folder
    holds a run with another recipe.
    """
    path = folder / STATE
    if not path.is_file():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["recipe"] != asdict(recipe):
        raise BadInput(f"{folder}: holds a run with another recipe; remove the folder, or give another")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["done"])


def read_log(folder: Path, done: int) -> list[dict[str, float]]:
    """The log of the steps that are done, without what was logged after the last save."""
    path = folder / LOG
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:done]] if path.is_file() else []


def write_log(folder: Path, log: Sequence[dict[str, float]]) -> None:
    """The log in place of the one that is there."""
    with _whole(folder / LOG) as path:
        path.write_text("".join(f"{json.dumps(entry)}\n" for entry in log), encoding="utf-8")


def save_best(folder: Path, model: nn.Module) -> None:
    """Write the weights as they are."""
    with _whole(folder / BEST) as path:
        torch.save(model.state_dict(), path)


def load_best(folder: Path, model: nn.Module) -> None:
    """Give the model the weights that `save_best` wrote last."""
    model.load_state_dict(torch.load(folder / BEST, map_location="cpu", weights_only=True))


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """The path to write to; the file takes its name when all is written."""
    unfinished = path.with_name(f"{path.name}.part")
    yield unfinished
    unfinished.replace(path)
