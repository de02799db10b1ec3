"""lm-eval's own model, HFLM, over the weights of one of ours: both asked the same, their answers compared.

Imports lm-eval, which takes seconds.
"""

from __future__ import annotations

import contextlib
import copy
import io
import math
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval.evaluator import evaluate as lm_eval_evaluate
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedTokenizerFast

from evals.ask.asker import Asker
from evals.zeroshot.lm_eval import AskedModel
from evals.zeroshot.run import evaluate
from rwkv_core import text, world
from rwkv_core.errors import Unsupported
from rwkv_core.runtimes import transformers_rwkv
from rwkv_core.rwkv import v4
from rwkv_core.rwkv.model import RWKV
from rwkv_core.spec import LanguageModel

BOUND = 1e-4  # of a perplexity: it is an exponential of log-likelihoods, whose last digits differ


class Answers(NamedTuple):
    """responses: of each request in lm-eval's order, (log-likelihood, greedy) or a text. metrics: of the task."""

    responses: list[Any]
    metrics: dict[str, Any]


def ours(task: Any, lm: AskedModel, docs: int = 0) -> Answers:
    """Of the first `docs` items, 0 for all, as the experiment zeroshot has them."""
    task = copy.copy(task)  # it holds its requests
    metrics, _ = evaluate(task, lm, docs)
    return Answers([instance.resps[0] for instance in task.instances], metrics)


def theirs(task: Any, lm: HFLM, docs: int = 0) -> Answers:
    """The same by lm-eval's evaluator."""
    task = copy.copy(task)
    loaded = {"tasks": {task.task_name: task}, "groups": {}, "group_map": {}}
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bars; ours are shown
        evaluated = lm_eval_evaluate(lm, loaded, limit=docs or None, bootstrap_iters=0, log_samples=False)
    metrics = evaluated["results"][task.task_name]
    responses = [instance.resps[0] for instance in task.instances]
    return Answers(responses, {key.removesuffix(",none"): value for key, value in metrics.items()})


def as_lm(model: LanguageModel, device: str, tokenizer: str, label: str = "") -> AskedModel:
    """Our model for lm-eval. tokenizer: a tokenizer's file, or own."""
    return AskedModel(Asker.of(model, device, tokenizer, "v0.4", label=label))


def causal(model: LanguageModel) -> Any:
    """transformers' model with the weights of ours, on its device and in its type. Raises Unsupported where there is
    none.
    """
    if isinstance(model, RWKV) and model.version is v4:
        return transformers_rwkv.converted(model)
    if (module := getattr(model, "causal", None)) is None:
        raise Unsupported(f"{model.spec.name} by {model.spec.runtime} has no weights that HFLM could use")
    return module


def peer(lm: AskedModel, module: Any, tokenizer: str, batch: int, **options: Any) -> HFLM:
    """HFLM over transformers' model, with the tokenizer and the window of ours. options: HFLM's, as its users have it
    without any. Raises Unsupported for the World tokenizer.
    """
    model = lm.asker.scorer.model
    shared = {"batch_size": batch, "max_length": model.spec.context_length, "device": lm.asker.scorer.device}
    source = getattr(model, "source", None)
    if tokenizer == "own" and isinstance(source, str) and not Path(source).is_dir():  # a repository of the hub
        return HFLM(module, tokenizer=source, revision=model.spec.revision, **shared, **options)
    path = text.source(source and Path(source), model.spec) if tokenizer == "own" else Path(tokenizer)
    if path.is_dir():
        return HFLM(module, tokenizer=str(path), **shared, **options)
    if world.is_vocabulary(path):
        raise Unsupported("transformers has no World tokenizer that HFLM could use")
    end = lm.asker.codec.spelled(lm.eot_token_id)
    fast = PreTrainedTokenizerFast(tokenizer_file=str(path), eos_token=end, pad_token=end)
    return HFLM(module, tokenizer=fast, **shared, **options)


def differences(task: Any, mine: Answers, reference: Answers) -> tuple[float | None, list[str]]:
    """The largest difference of a log-likelihood, None where texts were generated; and what else is not the same:
    greedy flags, texts, metrics with both values.
    """
    pairs = list(zip(mine.responses, reference.responses, strict=True))
    difference, differing = None, []
    if isinstance(mine.responses[0], str):
        if texts := sum(a != b for a, b in pairs):
            differing.append(f"{texts} texts")
    else:
        apart = [abs(a[0] - b[0]) for a, b in pairs]
        difference = max((one for one in apart if math.isfinite(one)), default=0.0)
        if odd := sum(not math.isfinite(one) for one in apart):
            differing.append(f"{odd} log-likelihoods that are not finite")
        if flags := sum(a[1] != b[1] for a, b in pairs):
            differing.append(f"{flags} greedy flags")
    for metric in task.aggregation():
        value, expected = mine.metrics[metric], reference.metrics[metric]
        if not abs(value - expected) <= (BOUND * expected if metric == "perplexity" else 0):
            differing.append(f"{metric} ({value} for {expected})")
    return difference, differing
