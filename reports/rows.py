"""Records -> rows: one flat dict for each value, statistics derived here from the raw samples."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from reports import labels
from reports.records.record import Record
from reports.statistics import orders
from reports.statistics.bands import spread
from rwkv_core.spec import ModelSpec

Row = dict[str, Any]

# versions of experiments that are read
OLDEST = {"inference": 2, "pretrain": 2, "context": 2, "extend": 2, "prompts": 2, "lra": 2, "encoders": 2}
OUTDATED = "measured by an older version of this experiment, which kept less; `rwkv-bench run` measures it again"
DEPTHS = 5  # places from the start of a text to its end, to the nearest of which a fact is counted
LRA_TASK = ("length", "pixels", "layers", "width", "heads", "steps", "batch", "every")  # the same for all mixers
LRA_RECIPE = ("dropout", "rise", "weight_decay")
MEDIAN_STEPS = 25  # of a training: so many steps' losses make one point of its curve


def from_records(records: Iterable[Record]) -> list[Row]:
    """Rows of every record: what was run, and one row for each value; one that is not ok has a row with its status."""
    rows: list[Row] = []
    records = list(records)
    bases = [_base(record) for record in records]
    labels.tell_apart([(r, b) for r, b in zip(records, bases, strict=True) if r.measured and not _outdated(r)])
    for record, base in zip(records, bases, strict=True):
        if record.status != "ok":
            rows.append({**base, "metric": "status", "error": record.error})
        if not record.measured:
            continue
        if _outdated(record):
            rows.append({**base, "metric": "status", "status": "outdated", "error": OUTDATED})
            continue
        rows += [{**base, **value} for value in _VALUES[record.cell["experiment"]](record)]
    return rows


def _outdated(record: Record) -> bool:
    return bool(record.cell["version"] < OLDEST.get(record.cell["experiment"], 1))


def _base(record: Record) -> Row:
    cell, model = record.cell, record.cell["model"]
    variant = labels.variant(record)
    return {
        "source": "measured",
        "cell": record.id,
        "measured_at": record.provenance["measured_at"],
        "status": record.status,
        "disturbed": record.status == "disturbed",
        "experiment": cell["experiment"],
        "model": model["name"],
        "label": model["label"] + variant,
        "variant": variant,
        "at_best": not variant,
        "family": model["family"],
        "weights": labels.weights(cell),
        "parameters": record.metrics.get("parameters", model["parameters"]),
        "device": cell["device"],
        "dtype": cell["dtype"],
        "machine": record.provenance["machine"],
        "threads": record.provenance.get("threads"),
        "attention": record.provenance.get("attention"),
        "text": str(cell["params"].get("text")),
        **{
            key: cell["params"].get(key)
            for key in ("task", "protocol", "batch", "prompt_tokens", "new_tokens", "schedule", "mixer", "direction")
        },
    }


def mark(weights: str) -> str:
    """What a heading says of the kind of weights."""
    return "pocket world" if weights == "pocket" else f"{weights} weights"


def _inference(record: Record) -> Iterator[Row]:
    runs: list[list[float]] = record.samples["token_seconds"]
    for token, seconds in enumerate(zip(*runs, strict=True), 1):
        yield spread("cumulative_s", seconds, tokens=token)
    steps = [[after - before for before, after in itertools.pairwise(run)] for run in runs]
    for token, seconds in enumerate(zip(*steps, strict=True), 2):
        yield spread("step_s", seconds, tokens=token)
    yield spread("first_token_s", [run[0] for run in runs])
    cuts = [statistics.quantiles(run, n=100, method="inclusive") for run in steps]
    for percent in (50, 90, 99):
        yield spread(f"p{percent}_s", [cut[percent - 1] for cut in cuts])
    batch = record.cell["params"]["batch"]
    yield spread("tokens_per_s", [batch * len(step) / sum(step) for step in steps])

    spec = ModelSpec(**record.cell["model"])
    itemsize = {"float32": 4, "bfloat16": 2, "float16": 2}[record.cell["dtype"]]
    for point in record.samples["memory"]:
        context = point["context_tokens"]
        # what the figures call memory: the allocator's peak on a GPU, live tensors on a CPU
        values = {**point, "peak_bytes": point.get("cuda_peak_bytes", point["peak_live_bytes"])}
        del values["context_tokens"]
        yield from ({"metric": metric, "value": value, "tokens": context} for metric, value in values.items())
    if why := record.metrics.get("resident_growth_missing"):
        yield {"metric": "resident_growth_bytes", "value": None, "tokens": context, "why": why}
    if "state_bytes" in record.metrics:
        contexts = {point["context_tokens"] for point in record.samples["memory"]}
        for context in sorted(contexts | {2**i for i in range(4, 14)}):  # by formula further than measured, to 8192
            value = spec.state_bytes(context, itemsize, batch)
            yield {"metric": "state_formula_bytes", "value": value, "tokens": context}
    stored = record.metrics["parameter_bytes"]
    yield {"metric": "parameter_bytes", "value": stored}
    yield {"metric": "read_bytes", "value": stored - spec.lookup_parameters * itemsize}
    if record.metrics.get("disagreement") is not None:
        yield {"metric": "disagreement", "value": record.metrics["disagreement"]}


def _race(record: Record) -> Iterator[Row]:
    params, metrics = record.cell["params"], record.metrics
    shared = {
        "what": params.get("direction") or params["task"],
        "tokens": params["tokens"],
        "channels": metrics.get("channels"),
        "threads": params["threads"],
    }
    for name, seconds in record.samples["seconds"].items():
        # a floor moves its own number of bytes: its time is scaled to those that must move
        scale = metrics["bytes"] / metrics["floor_bytes"] if name == "floor" else 1.0
        error = metrics["errors"].get(name.removesuffix(" eager"))
        graphed = name in metrics["graphed"]
        times = spread("race_s", [scale * s for s in seconds], contender=name, error=error, graphed=graphed)
        yield {**times, **shared, "scale": scale, "samples": seconds}


def _zeroshot(record: Record) -> Iterator[Row]:
    metrics = record.metrics
    counts = {"docs": metrics["docs"], "questions": metrics.get("questions", metrics["docs"])}
    for metric in (name.removesuffix("_stderr") for name in metrics if name.endswith("_stderr")):
        floors = {floor: metrics.get(f"{metric}_{floor}") for floor in ("chance", "named", "fixed")}
        error = metrics[f"{metric}_stderr"]
        yield {"metric": metric, "value": metrics[metric], "stderr": error, **counts, **floors}


def _prompts(record: Record) -> Iterator[Row]:
    params, metrics = record.cell["params"], record.metrics
    shared = {"order": params["order"], "way": params["way"], "docs": metrics["docs"]}
    shared["data"] = metrics["data_fingerprint"]
    yield {"metric": "unparsed", "value": metrics["unparsed"], **shared}
    yield {"metric": "cut", "value": metrics["cut"], **shared}
    if isinstance(items := record.samples["items"], list):
        for metric in orders.METRICS:
            yield {"metric": metric, **orders.score(items, metrics["labels"], metric)._asdict(), **shared}


def _pretrain(record: Record) -> Iterator[Row]:
    params, metrics = record.cell["params"], record.metrics
    shared = {"rate": params["learning_rate"], "steps": params["steps"], "window": params["window"]}
    for metric in ("loss", "held_out_loss", "tokens_per_s", "train_s", "passes"):
        yield {"metric": metric, "value": metrics[metric], "tokens": metrics["tokens"], **shared}
    each = metrics["tokens"] // params["steps"]
    losses = record.samples["loss"]
    for begin in range(0, len(losses), MEDIAN_STEPS):
        some = losses[begin : begin + MEDIAN_STEPS]
        tokens = (begin + len(some) / 2) * each
        yield {"metric": "step_loss", "value": statistics.median(some), "tokens": tokens, **shared}


def _context(record: Record) -> Iterator[Row]:
    shared = {"window": record.metrics["trained_tokens"], "stage": 0}
    for point in [*_curve(record.samples), *_levels(record.samples["levels"])]:
        yield {**point, **shared, "documents": record.metrics["documents_fingerprint"]}


def _extend(record: Record) -> Iterator[Row]:
    for number, stage in enumerate(record.samples["stages"]):
        shared = {"window": stage["window"], "stage": number, "trained_tokens": stage["tokens"]}
        shared["documents"] = record.metrics["documents_fingerprint"]
        for point in [*_curve(stage), *_levels(record.samples["levels"])]:
            yield {**point, **shared}


def _curve(samples: Mapping[str, Any]) -> Iterator[Row]:
    for context, losses in zip(samples["context"], zip(*samples["losses"], strict=True), strict=True):
        loss = statistics.fmean(losses)
        error = statistics.stdev(losses) / math.sqrt(len(losses))
        point = {"metric": "context_loss", "value": loss, "low": loss - error, "high": loss + error, "stderr": error}
        yield {**point, "tokens": context, "samples": losses}


def _levels(levels: Mapping[str, Mapping[str, float]]) -> Iterator[Row]:
    for name, losses in levels.items():
        for tokens, loss in losses.items():
            yield {"metric": "context_level", "level": name, "value": loss, "tokens": int(tokens)}


def _recall(record: Record) -> Iterator[Row]:
    params, metrics = record.cell["params"], record.metrics
    shared = {
        "size": params["size"],
        "alphabet": params["alphabet"],
        "rate": params["learning_rate"],
        "shift": params["token_shift"],
        "shuffled": params["shuffled"],
        "steps": params["steps"],
        "tokens": metrics["tokens"],
        "seed": record.cell["model"]["weights"].partition(":")[2],
    }
    floors = {floor: metrics[floor] for floor in ("chance", "majority", "rule")}
    yield {"metric": "accuracy", "value": metrics["accuracy"], "docs": metrics["docs"], **floors, **shared}
    yield {"metric": "loss", "value": metrics["loss"], **shared}
    yield {"metric": "state_bytes", "value": metrics["state_bytes"], **shared}


def _needles(record: Record) -> Iterator[Row]:
    metrics = record.metrics
    shared = {"length": record.cell["params"]["length"], "window": metrics["trained_tokens"]}
    shared["tokens"] = metrics["tokens"]
    shares: dict[float | None, list[float]] = {None: [item["share"] for item in record.samples["items"]]}
    for item in record.samples["items"]:
        if item["depth"] is not None:
            shares.setdefault(round(item["depth"] * (DEPTHS - 1)) / (DEPTHS - 1), []).append(item["share"])
    for depth, own in shares.items():
        error = statistics.stdev(own) / math.sqrt(len(own)) if len(own) > 1 else None
        value = {"metric": "needle", "value": statistics.fmean(own), "stderr": error, "depth": depth, "docs": len(own)}
        yield {**value, "chance": metrics["chance"], "named": metrics["named"], **shared}
    yield {"metric": "state_bytes", "value": metrics["state_bytes"], **shared}


def _lra(record: Record) -> Iterator[Row]:
    params, metrics = record.cell["params"], record.metrics
    shared = {key: params[key] for key in ("mixer", "direction", *LRA_TASK, *LRA_RECIPE)}
    told = ("title", "published", "budget", "inner", "data_source", "data_fingerprint")
    shared |= {key: metrics[key] for key in told}
    shared["attention_inner"] = params["inner"]
    shared["seed"] = record.cell["model"]["weights"].partition(":")[2]
    shared["rate"] = params["learning_rate"]
    share = metrics["accuracy"]
    error = math.sqrt(share * (1 - share) / metrics["docs"])
    test, validation = (
        {floor: metrics.get(f"{part}{floor}") for floor in ("majority", "root")} for part in ("", "validation_")
    )
    yield {"metric": "lra", "value": share, "stderr": error, "docs": metrics["docs"], **test, **shared}
    yield {"metric": "lra_validation", "value": metrics["validation_accuracy"], "best": metrics["best_step"], **shared}
    yield {"metric": "lra_train_s", "value": metrics["train_s"], **shared}
    for step, score in record.samples["validation"]:
        yield {"metric": "lra_curve", "value": score, "tokens": step, **validation, **shared}


def _encoders(record: Record) -> Iterator[Row]:
    metrics = record.metrics
    for row in _race(record):
        name = row["contender"]
        told = {"title": metrics["titles"][name], "budget": metrics["budget"][name], "inner": metrics["inner"][name]}
        yield {**row, **told}
    shared = {"what": record.cell["params"]["direction"], "tokens": record.cell["params"]["tokens"]}
    for name, peak in metrics["peak_bytes"].items():
        yield {"metric": "peak_bytes", "value": peak, "contender": name, "title": metrics["titles"][name], **shared}


_VALUES = {
    "inference": _inference,
    "kernels": _race,
    "peers": _race,
    "zeroshot": _zeroshot,
    "prompts": _prompts,
    "pretrain": _pretrain,
    "context": _context,
    "extend": _extend,
    "recall": _recall,
    "needles": _needles,
    "lra": _lra,
    "encoders": _encoders,
}
