"""The zero-shot experiment: one model, one task, one protocol, scored as lm-eval scores it."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from evals import hub, identity
from evals.ask.asker import Asker
from evals.experiment import AtLeast, Experiment, OneOf
from evals.zeroshot import tasks
from rwkv_core.errors import BadInput
from rwkv_core.files import fingerprint
from rwkv_core.spec import LanguageModel

VERSION = 3  # of 3 on: special tokens as lm-eval has them


def run(
    model: LanguageModel,
    *,
    device: str,
    task: Annotated[str, OneOf(tasks.catalogue)],
    protocol: Literal["v0.4", "v0.3"] = "v0.4",
    data: str = "hub",
    tokenizer: str = "own",
    docs: Annotated[int, AtLeast(0)] = 0,
    share: bool = True,
    batch_tokens: Annotated[int, AtLeast(0)] = 0,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Score one of lm-eval's tasks, by its own prompts and metrics.

    task: an entry of configs/tasks.yaml.
    protocol: v0.4: lm-eval as it is today. v0.3: as the paper ran it.
    data: a folder with `<task>/<split>.jsonl`, pocket (the embedded world's items), or hub (or hub:COMMIT); a matrix's
        task that the folder or the pocket world lacks comes from the hub.
    tokenizer: own, pocket (that world's), a tokenizer.json or a World vocabulary.
    docs: the first so many items; 0 for all.
    share: compute common contexts once.
    batch_tokens: the most in one batch; 0 for the device's default.

    Returns metrics (each with its standard error and chance) and `items`, what was found for each item.
    """
    loaded = tasks.load(task, data, protocol, docs)  # first: it says where lm-eval is missing
    from evals.zeroshot.lm_eval import AskedModel  # here, because it imports lm-eval

    label = f"{task} {model.spec.label}"
    asker = Asker.of(model, device, tokenizer, protocol, share=share, batch_tokens=batch_tokens, label=label)
    started = time.perf_counter()
    count = len(list(tasks.items(loaded, docs)))
    questions = tasks.questions(tasks.local_folder(data, task), count)
    metrics, items = evaluate(loaded, AskedModel(asker), docs, questions)
    metrics |= {
        **dict(asker.counts),
        "score_s": time.perf_counter() - started,
        "data_source": "local" if tasks.local_folder(data, task) else "hub",
        "data_fingerprint": tasks.fingerprint(loaded, docs),
        "window": asker.max_length,
        "prompt_prefix": asker.prefix,
        "special_tokens": asker.special_tokens,
        "parameters": model.parameter_count,
    }
    return metrics, {"items": items}


def evaluate(
    task: Any, lm: Any, docs: int = 0, questions: Sequence[str] | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Metrics of a task object of lm-eval with any of its models, and the items they are made of. questions: what each
    item asks; unless given, items with the same context and right answer ask the same.
    """
    with contextlib.redirect_stderr(io.StringIO()):  # a progress bar for something that takes no time
        task.build_all_requests(limit=docs or None)
    instances = task.instances
    (kind,) = {instance.request_type for instance in instances}
    for instance, answer in zip(instances, getattr(lm, kind)(instances), strict=True):
        instance.resps.append(answer)
    task.apply_filters()
    (filter_name,) = instances[0].filtered_resps
    by_doc: dict[int, list[Any]] = defaultdict(list)
    for instance in instances:
        by_doc[instance.doc_id].append(instance)
    items, picked = [], []
    question_numbers: dict[Any, int] = {}
    for number, group in by_doc.items():
        group.sort(key=lambda instance: instance.idx)
        results = [instance.filtered_resps[filter_name] for instance in group]
        scores = task.process_results(group[0].doc, results)
        key: Any = tuple(instance.args[0] for instance in group)
        if task.OUTPUT_TYPE == "multiple_choice":
            picked.append(_picked(task, group[0].doc, [instance.args for instance in group]))
            key += max(picked[-1], key=lambda choice: sum(choice.scores.values()))[:1]
        if questions:
            key = questions[number]
        question = question_numbers.setdefault(key, len(question_numbers))
        items.append({"doc": number, "question": question, **_answers(kind, results), **scores})
    return _metrics(task, items, picked), items


def _answers(kind: str, results: Sequence[Any]) -> dict[str, Any]:
    if kind == "generate_until":
        return {"text": results[0]}
    return {
        "loglikelihoods": [round(loglikelihood, 5) for loglikelihood, _ in results],
        "greedy": [int(greedy) for _, greedy in results],
    }


class Choice(NamedTuple):
    """A choice that a model could pick: its text, what the item gives for it by the task's own rules, and whether its
    context names it.
    """

    text: str
    scores: dict[str, float]
    named: bool


def _picked(task: Any, doc: Any, choices: Sequence[tuple[str, str]]) -> list[Choice]:
    outcomes = []
    for picked, (context, text) in enumerate(choices):
        scores = task.process_results(doc, [(0.0 if i == picked else -1e9, False) for i in range(len(choices))])
        mention = re.search(rf"(?<!\w){re.escape(text.strip())}(?!\w)", context, re.IGNORECASE)
        outcomes.append(Choice(text, scores, mention is not None))
    return outcomes


def _metrics(task: Any, items: Sequence[Mapping[str, Any]], picked: Sequence[Sequence[Choice]]) -> dict[str, Any]:
    """Each metric as lm-eval aggregates it, its standard error (items of one question are not independent: clustered by
    question; for a perplexity by the delta method), and its floors: chance (any choice), named (any of the choices that
    the context names, if there are some) and, where answers recur, fixed (the best answer given always, as yes).
    """
    metrics: dict[str, Any] = {"docs": len(items), "questions": len({item["question"] for item in items})}
    for metric, aggregate in task.aggregation().items():
        values = [float(item[metric]) for item in items]
        try:
            metrics[metric] = float(aggregate(values))
        except OverflowError:  # the exponential of a perplexity
            metrics[metric] = math.inf
        mean, sums = statistics.fmean(values), [0.0] * metrics["questions"]
        for item, value in zip(items, values, strict=True):
            sums[item["question"]] += value - mean
        spread = statistics.stdev(sums) * math.sqrt(len(sums)) / len(items) if len(sums) > 1 else None
        if metric == "perplexity" and spread is not None:  # d exp(-x) = exp(-x) dx
            spread *= metrics[metric]
        metrics[f"{metric}_stderr"] = spread
        if picked:
            mentioned = [[choice for choice in item if choice.named] or item for item in picked]
            for baseline, candidates in (("chance", picked), ("named", mentioned)):
                means = [statistics.fmean(choice.scores[metric] for choice in item) for item in candidates]
                metrics[f"{metric}_{baseline}"] = statistics.fmean(means)
            if all(len({choice.text for choice in item}) == len(item) for item in picked):
                fixed: dict[str, float] = defaultdict(float)
                for choice in itertools.chain.from_iterable(picked):
                    fixed[choice.text] += choice.scores[metric]
                metrics[f"{metric}_fixed"] = max(fixed.values()) / len(picked)
    return metrics


def identify_data(data: str, params: Mapping[str, Any]) -> tuple[str, str]:
    """What stands for the data in a cell's name, since a folder's content may change; and where they are: a task that a
    directory lacks comes from the hub.
    """
    revision = hub.revision(data)
    if not revision and data != "pocket" and not Path(data).is_dir():
        raise BadInput(f"data {data!r}: no such folder; give one with <task>/<split>.jsonl, pocket, or hub")
    place = tasks.place(data, params["task"])
    if revision or not place.is_dir():
        return hub.identified(tasks.entry(params["task"])["hub"], revision)
    kind, where = ("pocket", "pocket") if data == "pocket" else ("local", str(Path(data).resolve()))
    try:
        return f"{kind}:{fingerprint(tasks.local_file(place), place / tasks.QUESTIONS)}", where
    except BadInput:  # said again, and whole, when the cell is measured
        return f"{kind}:incomplete", where


def definition(params: Mapping[str, Any]) -> dict[str, Any]:
    """What configs/tasks.yaml says of a task that changes its scores."""
    entry = tasks.entry(params["task"])
    return {key: entry.get(key) for key in ("definition", "split", "own_space", "fields", "answer", "answers")}


EXPERIMENT = Experiment(
    run, version=VERSION, reads={"data": identify_data, "tokenizer": identity.tokenizer}, definition=definition
)
