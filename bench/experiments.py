"""The experiments by name: the only table of them."""

from __future__ import annotations

from bench.speed import capacity, decode, encoders, harness, inference, kernels, peers
from evals.experiment import Experiment
from evals.language import context, extend, precision, pretrain
from evals.lra import run as lra
from evals.needles import run as needles
from evals.prompts import run as prompts
from evals.recall import run as recall
from evals.zeroshot import run as zeroshot

EXPERIMENTS: dict[str, Experiment] = {
    "inference": inference.EXPERIMENT,
    "decode": decode.EXPERIMENT,
    "capacity": capacity.EXPERIMENT,
    "kernels": kernels.EXPERIMENT,
    "peers": peers.EXPERIMENT,
    "zeroshot": zeroshot.EXPERIMENT,
    "harness": harness.EXPERIMENT,
    "prompts": prompts.EXPERIMENT,
    "pretrain": pretrain.EXPERIMENT,
    "context": context.EXPERIMENT,
    "extend": extend.EXPERIMENT,
    "precision": precision.EXPERIMENT,
    "recall": recall.EXPERIMENT,
    "needles": needles.EXPERIMENT,
    "lra": lra.EXPERIMENT,
    "encoders": encoders.EXPERIMENT,
}

VERSIONS = {name: experiment.version for name, experiment in EXPERIMENTS.items()}
