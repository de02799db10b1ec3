"""The one training loop: AdamW, the paper's schedule, a log line a step, exact resume after a kill.

Whatever is trained is an `objective`, a module whose forward takes a batch and gives its loss, and a function from
the step to that step's batch. Nothing random is carried from step to step, so a run that goes on is the same run.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from tqdm import tqdm

from rwkv_core import finite
from rwkv_core.errors import BadInput

BEST = "best.pt"  # in the folder of a training that is judged
SAVE_SECONDS = 60.0  # at most so much is lost in a kill
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, LARGEST = -1, -3, 2**30  # glibc's malloc.h


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. The rate is constant, then falls to `end_rate`: exponentially (paper v2, App. G, whose
    "warm-up" is a constant rate), or along a cosine; before that it rises for `rise` steps, since Adam's first ones are
    noisy.
    """

    steps: int
    learning_rate: float
    end_rate: float
    constant: float = 0.2  # share of the steps before the rate falls
    rise: int = 20  # steps
    betas: tuple[float, float] = (0.9, 0.99)  # paper v2, App. G
    weight_decay: float = 0.0  # as in the paper
    clip: float = 1.0  # norm of all gradients together
    seed: int = 0
    autocast: bool = False  # bfloat16 products, float32 weights
    cosine: bool = False

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.rise:
            return self.learning_rate * (step + 1) / self.rise
        falling = max(0.0, step / self.steps - self.constant) / (1 - self.constant)
        if self.cosine:
            return self.end_rate + (self.learning_rate - self.end_rate) * (1 + math.cos(math.pi * falling)) / 2
        return self.learning_rate * math.exp(falling * math.log(self.end_rate / self.learning_rate))


class Undecayed(nn.Parameter):
    """A table that weight decay leaves alone, as it does vectors: positions, a state's dynamics. rate_at_most: the
    highest rate that it learns at.
    """

    rate_at_most = math.inf


def train(
    objective: nn.Module,
    batch: Callable[[int], Sequence[Tensor]],
    recipe: Recipe,
    work: Path,
    *,
    device: str = "cpu",
    label: str = "",
    judge: Callable[[], float] | None = None,
    every: int = 0,
) -> list[dict[str, float]]:
    """Train to the recipe's end, going on from what `work` holds; the log, one entry a step.

    judge: called after each `every` steps and at the end; what it returns stands in the log as `score`, and the weights
    with the best one are those that the objective has in the end.

    batch: step -> tensors [B, ...], the same for the same step; with several processes (torchrun) each takes its rows
    of them. work: a folder with `log.jsonl` and `state.pt`. Raises BadInput where `work` holds another run, and
    FloatingPointError where the loss or a gradient is no longer a number.
    """
    if PartialState().num_processes == 1:
        AcceleratorState._reset_state(reset_partial_state=True)  # or it keeps the device of an earlier training
    accelerator = Accelerator(cpu=device == "cpu")
    if device == "cpu":
        _keep_memory()
    optimizer = torch.optim.AdamW(_groups(objective, recipe), lr=recipe.learning_rate, betas=recipe.betas, fused=True)
    work.mkdir(parents=True, exist_ok=True)
    plain = objective.to(accelerator.device).train()
    done = _resume(work, plain, optimizer, recipe)
    shown = accelerator.is_main_process
    log = _kept(work / "log.jsonl", done)
    if shown:
        _rewrite(work / "log.jsonl", log)
    model, optimizer = accelerator.prepare(plain, optimizer)
    ranks, rank = accelerator.num_processes, accelerator.process_index
    saved = time.monotonic()
    with (
        (work / "log.jsonl").open("a", encoding="utf-8") as lines,
        tqdm(total=recipe.steps, initial=done, desc=label, unit="step", dynamic_ncols=True, disable=not shown) as bar,
    ):
        for step in range(done, recipe.steps):
            started = time.perf_counter()
            torch.manual_seed((recipe.seed << 32) + step)  # dropout, if any: of this step, however it was reached
            tensors = [t[rank::ranks].to(accelerator.device) for t in batch(step)]
            rate = recipe.rate(step)
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("share", 1.0)
            with torch.autocast(device, torch.bfloat16, enabled=recipe.autocast):
                loss = model(*tensors)
            accelerator.backward(loss)
            norm = float(accelerator.clip_grad_norm_(model.parameters(), recipe.clip))
            value = float(accelerator.reduce(loss.detach(), "mean"))
            if not math.isfinite(value + norm):  # the weights are still those that gave it
                layer = finite.first_layer(plain, functools.partial(plain, *tensors))
                what = f"the loss is {value} and the gradients' norm {norm} at step {step}"
                where = f", first of all in {layer.removeprefix('model.')}" if layer else ""
                raise FloatingPointError(f"{label}: {what}{where}; try a smaller learning rate")
            optimizer.step()
            optimizer.zero_grad()
            seconds = time.perf_counter() - started
            entry = {"step": step, "loss": value, "rate": rate, "norm": norm, "seconds": seconds}
            if judge and ((step + 1) % every == 0 or step + 1 == recipe.steps):
                entry["score"] = _judged(work, plain, judge, log)
            log.append(entry)
            if not shown:
                continue
            lines.write(json.dumps(entry) + "\n")
            bar.set_postfix_str(f"loss {value:.3f}, {tensors[0].numel() * ranks / seconds:,.0f} token/s", refresh=False)
            bar.update()
            if time.monotonic() - saved > SAVE_SECONDS or step + 1 == recipe.steps:
                lines.flush()
                _save(work, plain, optimizer, recipe, step + 1)
                saved = time.monotonic()
    plain.eval()
    if judge:
        plain.load_state_dict(torch.load(work / BEST, map_location="cpu", weights_only=True))
    return log


def _judged(work: Path, model: nn.Module, judge: Callable[[], float], log: Sequence[dict[str, float]]) -> float:
    """The score of the weights as they are, kept if none before was as good."""
    model.eval()
    score = judge()
    model.train()
    if score > max((entry["score"] for entry in log if "score" in entry), default=-math.inf):
        unfinished = work / f"{BEST}.part"
        torch.save(model.state_dict(), unfinished)
        unfinished.replace(work / BEST)
    return score


def _keep_memory() -> None:
    """Let malloc keep the memory of one step for the next. Given back, as glibc does with large blocks, it comes again
    page by page, which took two thirds of a small model's step.
    """
    with contextlib.suppress(AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST)
        libc.mallopt(M_TRIM_THRESHOLD, LARGEST)


def _groups(objective: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Matrices decay; vectors (biases, norms, RWKV's decays and shifts) and what is `Undecayed` do not."""
    kept: dict[float, list[nn.Parameter]] = {1.0: []}
    matrices = []
    for p in objective.parameters():
        if isinstance(p, Undecayed):
            kept.setdefault(min(1.0, p.rate_at_most / recipe.learning_rate), []).append(p)
        elif p.squeeze().dim() > 1:
            matrices.append(p)
        else:
            kept[1.0].append(p)
    groups: list[dict[str, Any]] = [{"params": matrices, "weight_decay": recipe.weight_decay}]
    return groups + [{"params": own, "weight_decay": 0.0, "share": share} for share, own in kept.items()]


def _save(work: Path, model: nn.Module, optimizer: Any, recipe: Recipe, done: int) -> None:
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "recipe": asdict(recipe), "done": done}
    unfinished = work / "state.pt.part"
    torch.save(state, unfinished)
    unfinished.replace(work / "state.pt")


def _resume(work: Path, model: nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe) -> int:
    """How many steps are done; weights and optimizer as they were then."""
    path = work / "state.pt"
    if not path.is_file():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["recipe"] != asdict(recipe):
        raise BadInput(f"{work}: holds a run with another recipe; remove the folder, or give another")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["done"])


def _kept(path: Path, done: int) -> list[dict[str, float]]:
    """The log of the steps that are done."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:done]] if path.is_file() else []


def _rewrite(path: Path, log: list[dict[str, float]]) -> None:
    """The file without what was logged after the last save."""
    unfinished = path.with_suffix(".part")
    unfinished.write_text("".join(f"{json.dumps(entry)}\n" for entry in log), encoding="utf-8")
    unfinished.replace(path)
