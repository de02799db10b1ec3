"""Our zero-shot answers and time against lm-eval's own HFLM, with the same weights, threads and data.

`python -m tests.checks.zeroshot DATA TOKENIZER` prints a line a (model, task): the largest difference of a
log-likelihood from HFLM at batch size 1, whether every greedy flag, generated text and metric is the same, and the time
of HFLM at each of its batch sizes beside ours, in one process, taken in turn. First come models that share TOKENIZER,
then folders in the hub's format, each family with its own kind of tokenizer, which both sides read from the folder.
Exits with 1 where an answer differs.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lm_eval.api.instance import Instance
from lm_eval.evaluator import evaluate as lm_eval_evaluate
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedTokenizerFast

from evals.ask.asker import Asker
from evals.zeroshot import tasks
from evals.zeroshot.lm_eval import AskedModel
from evals.zeroshot.run import evaluate
from rwkv_core.load import load
from rwkv_core.models import find
from rwkv_core.runtimes import transformers_rwkv
from rwkv_core.spec import LanguageModel, ModelSpec
from tests import families

BOUND = 1e-4
SMALL = {  # one of each architecture, narrow, with the whole vocabulary of the GPT-NeoX tokenizer
    "rwkv": ("rwkv4", {"model_type": "rwkv", "num_hidden_layers": 4}),
    "gpt_neox": (
        "pythia",
        {"model_type": "gpt_neox", "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 512},
    ),
    "opt": (
        "opt",
        {
            "model_type": "opt",
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "ffn_dim": 512,
            "word_embed_proj_dim": 128,
            "max_position_embeddings": 1024,
        },
    ),
    "bloom": ("bloom", {"model_type": "bloom", "n_layer": 4, "n_head": 4}),
}
SHARPER = 4  # times the random weights of a small model, so that its answers differ from chance
TEXTS = "single texts"  # the name of a line: contexts that no task has
BARREL = " the barrel was found in the"
PAIRS = [("", BARREL), ("", BARREL[1:]), ("Ann put", BARREL), ("Ann put \n", BARREL), ("Ann. " * 400, BARREL)]
WHITE = [("\n", BARREL), ("  ", BARREL[1:])]  # HFLM scores these only where the tokenizer puts a BOS
PROMPTS = ["Ann put", "Ann put \n", "\n", "Ann. " * 400, "The letter of Ann said that the"]
TWELVE = [name for name, entry in tasks.catalogue().items() if entry.get("twelve")]


class Line(NamedTuple):
    """One (model, task). seconds: ours, and HFLM's by batch size, a single run of each; difference: None where it
    was only timed.
    """

    model: str
    task: str
    requests: int
    difference: float | None
    differing: list[str]
    ours_s: float
    theirs_s: dict[int, float]

    @property
    def right(self) -> bool:
        return self.difference is None or (self.difference <= BOUND and not self.differing)

    def __str__(self) -> str:
        best = min(self.theirs_s.values())
        times = ", ".join(f"{size}: {seconds:.1f}" for size, seconds in self.theirs_s.items())
        if self.difference is None:
            verdict = "timed only"
        else:
            verdict = f"{self.difference:.1e}  " + ("same" if self.right else f"DIFFERS {' '.join(self.differing)}")
        return (
            f"{self.model:14} {self.task:15} {self.requests:5} requests  {verdict}  "
            f"ours {self.ours_s:.1f} s  HFLM {times} s  ratio {best / self.ours_s:.2f}"
        )


def small(name: str) -> ModelSpec:
    """A small model of an architecture, with random weights."""
    family, shape = SMALL[name]
    return ModelSpec(name, family, {"vocab_size": 50304, "hidden_size": 128, **shape}, weights="random:0", label=name)


def sharpened(spec: ModelSpec) -> LanguageModel:
    """The model, its random matrices larger where it is one of the small ones."""
    model = load(spec)
    if spec.seed is not None and spec.name in SMALL:
        with torch.no_grad():
            for _, p in model.named_parameters():
                if p.dim() == 2:
                    p.mul_(SHARPER)
    return model


def peer(model: LanguageModel, tokenizer: Path | None, batch: int) -> Any:
    """lm-eval's HFLM over transformers' own model with the same weights, and our window; without a tokenizer all of it
    as HFLM reads it from the model's folder.

    For the answers (batch size 1) it adds in float64: beyond 1,024 the float32 sums that it makes by default are
    further apart than the bound. For the times it is as its users have it.
    """
    exact = {"softmax_dtype": torch.float64} if batch == 1 else {}
    more = {"batch_size": batch, "max_length": model.spec.context_length, "device": "cpu", **exact}
    if tokenizer is None:
        return HFLM(model.spec.weights, dtype="float32", **more)
    causal = transformers_rwkv.converted(model) if model.spec.family == "rwkv4" else model.causal  # type: ignore[attr-defined]
    fast = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer), eos_token="<|endoftext|>")
    fast.pad_token = fast.eos_token
    return HFLM(causal, tokenizer=fast, **more)


def mine(model: LanguageModel, tokenizer: Path | None, label: str = "") -> AskedModel:
    """Our model for lm-eval."""
    return AskedModel(Asker.of(model, "cpu", str(tokenizer or "own"), "v0.4", label=label))


def single_texts(model: LanguageModel) -> Line:
    """Contexts that are empty, end with white space, are nothing else, or are longer than the window: scored, and gone
    on from.
    """
    ours, theirs = mine(model, None), peer(model, None, 1)
    pairs = PAIRS + (WHITE if ours.asker.special_tokens else [])
    options = {"until": ["\n\n"], "max_gen_toks": 24}
    scored, written = (
        [Instance(kind, {}, arguments, i) for i, arguments in enumerate(asked)]
        for kind, asked in (("loglikelihood", pairs), ("generate_until", [(text, options) for text in PROMPTS]))
    )
    found, seconds = [], []
    with contextlib.redirect_stderr(io.StringIO()):  # HFLM's progress bars
        for lm in (ours, theirs):
            started = time.perf_counter()
            found.append((lm.loglikelihood(scored), lm.generate_until(written)))
            seconds.append(time.perf_counter() - started)
    (own, own_texts), (reference, texts) = found
    difference = max(abs(a[0] - b[0]) for a, b in zip(own, reference, strict=True))
    differing = [] if [a[1] for a in own] == [b[1] for b in reference] else ["greedy"]
    differing += [f"text {a!r} for {b!r}" for a, b in zip(own_texts, texts, strict=True) if a != b]
    return Line(model.spec.label, TEXTS, len(pairs) + len(PROMPTS), difference, differing, seconds[0], {1: seconds[1]})


def answers(task: Any, lm: Any) -> tuple[list[tuple[float, bool]], dict[str, Any], float]:
    """(log-likelihood, greedy) of each request in lm-eval's order, its metrics, seconds; by lm-eval's evaluator."""
    own = copy.copy(task)
    started = time.perf_counter()
    loaded = {"tasks": {task.task_name: own}, "groups": {}, "group_map": {}}
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bars; ours are shown
        found = lm_eval_evaluate(lm, loaded, bootstrap_iters=0, log_samples=False)
    seconds = time.perf_counter() - started
    metrics = {key.removesuffix(",none"): value for key, value in found["results"][task.task_name].items()}
    return [instance.resps[0] for instance in own.instances], metrics, seconds


def compare(
    model: LanguageModel, task_name: str, data: str, tokenizer: Path | None, docs: int, batches: Sequence[int]
) -> Line:
    """Ours against HFLM, at batch size 1 for the answers, and at each of `batches` for the time."""
    task = tasks.load(task_name, data, "v0.4", docs)
    ours = copy.copy(task)
    started = time.perf_counter()
    metrics, _ = evaluate(ours, mine(model, tokenizer, task_name))
    ours_s = time.perf_counter() - started
    theirs_s = {}
    for batch in batches:
        found, their_metrics, theirs_s[batch] = answers(task, peer(model, tokenizer, batch))
        if batch == 1:
            reference, reference_metrics = found, their_metrics
    given = [instance.resps[0] for instance in ours.instances]
    difference, differing = None, []
    if 1 in batches:
        difference = max(abs(a[0] - b[0]) for a, b in zip(given, reference, strict=True))
        differing = [] if [a[1] for a in given] == [b[1] for b in reference] else ["greedy"]
        for metric in task.aggregation():
            theirs, own = reference_metrics[metric], metrics[metric]
            if abs(theirs - own) > (BOUND * theirs if metric == "perplexity" else 0):
                differing.append(f"{metric} ({own} for {theirs})")
    return Line(model.spec.label or model.spec.name, task_name, len(given), difference, differing, ours_s, theirs_s)


def lines(
    models: Sequence[ModelSpec],
    names: Sequence[str],
    data: str,
    tokenizer: Path | None,
    docs: int,
    batches: Sequence[int],
) -> Iterator[Line]:
    """tokenizer: None for each model's own."""
    for spec in models:
        model = sharpened(spec)
        if tokenizer is None:
            yield single_texts(model)
        for name in names:
            yield compare(model, name, data, tokenizer, docs, batches)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--docs", type=int, default=40)
    parser.add_argument("--models", nargs="+", default=list(SMALL), help="of configs/models, or small: %(default)s")
    parser.add_argument(
        "--families",
        nargs="*",
        default=list(families.SHAPES),
        help="folders with their own kind of tokenizer: %(default)s",
    )
    parser.add_argument("--tasks", nargs="+", default=TWELVE)
    parser.add_argument("--batches", nargs="+", type=int, default=[1], help="HFLM's; 1 gives the answers")
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    specs = [small(name) if name in SMALL else find(name, weights="random:0") for name in given.models]
    asked = (given.tasks, given.data)
    wrong = 0
    totals: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="rwkv-bench-") as place:
        folders = [families.folder(name, Path(place)) for name in given.families]
        for line in itertools.chain(
            lines(specs, *asked, given.tokenizer, given.docs, given.batches),
            lines(folders, *asked, None, given.docs, given.batches),
        ):
            print(line, flush=True)
            wrong += not line.right
            if line.task != TEXTS:
                total = totals.setdefault(line.model, [0.0, *[0.0] * len(given.batches)])
                for i, seconds in enumerate([line.ours_s, *line.theirs_s.values()]):
                    total[i] += seconds
    for name, (ours, *theirs) in totals.items():
        print(f"{name:14} all tasks: ours {ours:.0f} s, HFLM {min(theirs):.0f} s, ratio {min(theirs) / ours:.2f}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
