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
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from tqdm import tqdm

from evals.train import resume
from evals.train.recipe import Recipe, groups
from rwkv_core import finite

SAVE_SECONDS = 60.0  # at most so much is lost in a kill
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, LARGEST = -1, -3, 2**30  # glibc's malloc.h


def train(
    objective: nn.Module,
    batch: Callable[[int], Sequence[Tensor]],
    recipe: Recipe,
    folder: Path,
    *,
    device: str = "cpu",
    label: str = "",
    evaluate: Callable[[], float] | None = None,
    eval_every: int = 0,
) -> list[dict[str, float]]:
    """Train to the recipe's end, going on from what `folder` holds; the log, one entry a step.

    evaluate: called after each `eval_every` steps and at the end; what it returns stands in the log as `score`, and the
    weights with the best one are those that the objective has in the end.

    batch: step -> tensors [B, ...], the same for the same step; with several processes (torchrun) each takes its rows
    of them. folder: with `log.jsonl` and `state.pt`. Raises BadInput where `folder` holds another run, and
    FloatingPointError where the loss or a gradient is no longer a number.
    """
    if PartialState().num_processes == 1:
        AcceleratorState._reset_state(reset_partial_state=True)  # or it keeps the device of an earlier training
    accelerator = Accelerator(cpu=device == "cpu")
    if device == "cpu":
        _keep_memory()
    optimizer = torch.optim.AdamW(groups(objective, recipe), lr=recipe.learning_rate, betas=recipe.betas, fused=True)
    folder.mkdir(parents=True, exist_ok=True)
    plain = objective.to(accelerator.device).train()
    done = resume.load_state(folder, plain, optimizer, recipe)
    is_main = accelerator.is_main_process
    log = resume.read_log(folder, done)
    if is_main:
        resume.write_log(folder, log)
    model, optimizer = accelerator.prepare(plain, optimizer)
    ranks, rank = accelerator.num_processes, accelerator.process_index
    last_save = time.monotonic()
    with (
        (folder / resume.LOG).open("a", encoding="utf-8") as lines,
        tqdm(total=recipe.steps, initial=done, desc=label, unit="step", dynamic_ncols=True, disable=not is_main) as bar,
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
            if evaluate and ((step + 1) % eval_every == 0 or step + 1 == recipe.steps):
                entry["score"] = _scored(folder, plain, evaluate, log)
            log.append(entry)
            if not is_main:
                continue
            lines.write(json.dumps(entry) + "\n")
            bar.set_postfix_str(f"loss {value:.3f}, {tensors[0].numel() * ranks / seconds:,.0f} token/s", refresh=False)
            bar.update()
            if time.monotonic() - last_save > SAVE_SECONDS or step + 1 == recipe.steps:
                lines.flush()
                resume.save_state(folder, plain, optimizer, recipe, step + 1)
                last_save = time.monotonic()
    plain.eval()
    if evaluate:
        resume.load_best(folder, plain)
    return log


def _scored(folder: Path, model: nn.Module, evaluate: Callable[[], float], log: Sequence[dict[str, float]]) -> float:
    """The score of the weights as they are, which are written if none before was as good."""
    model.eval()
    score = evaluate()
    model.train()
    if score > max((entry["score"] for entry in log if "score" in entry), default=-math.inf):
        resume.save_best(folder, model)
    return score


def _keep_memory() -> None:
    """Let malloc keep the memory of one step for the next. Given back, as glibc does with large blocks, it comes again
    page by page, which took two thirds of a small model's step.
    """
    with contextlib.suppress(AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST)
        libc.mallopt(M_TRIM_THRESHOLD, LARGEST)
