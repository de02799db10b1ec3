"""Published numbers, as rows of the same form as the measured ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

import configs
from reports.reading import Row

FOLDER = Path(__file__).parent

FAMILIES = {"rwkv-4-pile": "rwkv4"}  # the figures' names -> ours; the others are the same
MODELS = {  # of Fig. 6: family, billions of parameters, label
    "facebook/opt-2.7b": ("opt", 2.7, "OPT 2.7B"),
    "EleutherAI/gpt-neo-2.7B": ("gpt-neo", 2.7, "GPT-Neo 2.7B"),
    "EleutherAI/pythia-2.8b": ("pythia", 2.8, "Pythia 2.8B"),
    "bigscience/bloom-3b": ("bloom", 3.0, "BLOOM 3B"),
    "rwkv-4-pile-3b": ("rwkv4", 3.0, "RWKV-4 3B"),
}
MACHINES = {"cuda": "NVIDIA A100 80GB", "cpu": "AMD EPYC, 30 cores"}  # v1 sec. 6 and App. I
FIXED_TOKENS = 512  # of v1 Figs. 10 and 11
ZERO_SHOT_MODELS = {  # the names in v1 Tables 3 and 4 -> configs/models; the other sources use its names
    "RWKV-4 0.17B": "rwkv4-169m",
    "RWKV-4 0.43B": "rwkv4-430m",
    "RWKV-4 1.5B": "rwkv4-1b5",
    "RWKV-4 3.0B": "rwkv4-3b",
    "RWKV-4 7.4B": "rwkv4-7b",
    "RWKV-4 14.2B": "rwkv4-14b",
    "Pythia 0.16B": "pythia-160m",
    "Pythia 0.40B": "pythia-410m",
    "Pythia 1.4B": "pythia-1.4b",
    "Pythia 2.8B": "pythia-2.8b",
    "Pythia 6.9B": "pythia-6.9b",
    "Pythia (c.f.) 11.8B": "pythia-12b",
    "GPT-Neo 0.16B": "gpt-neo-125m",
    "GPT-Neo 1.4B": "gpt-neo-1.3b",
    "GPT-Neo 2.8B": "gpt-neo-2.7b",
}
LATER_MODELS = {  # the names of later models in zero_shot.csv -> configs/models; some have several
    "Eagle-1.5B": "rwkv5-1b5",
    "Eagle-3B": "rwkv5-3b",
    "Eagle-7B": "rwkv5-7b",
    "Eagle 7B": "rwkv5-7b",
    "Finch-1.6B": "rwkv6-1b6",
    "Finch-3B": "rwkv6-3b",
    "Finch 7B (World v2.1)": "rwkv6-7b",
    "RWKV/rwkv-6-world-7b": "rwkv6-7b",
    "Finch 14B": "rwkv6-14b",
    "RWKV-x070-World-0.1B": "rwkv7-0b1",
    "fla-hub/rwkv7-1.5B-world": "rwkv7-1b5",
    "fla-hub/rwkv7-1.5B-world (initial token 0)": "rwkv7-1b5",
    "rwkv7-1.5B-world through fla": "rwkv7-1b5",
    "RWKV-x070-World-1.5B through pip rwkv": "rwkv7-1b5",
    "fla-hub/rwkv7-2.9B-world": "rwkv7-2b9",
    "RWKV7-World3-2.9B": "rwkv7-2b9",
    "fla-hub/rwkv7-168M-pile": "rwkv7-168m-pile",
    "SmerkyG/RWKV7-Goose-0.1B-Pile-HF": "rwkv7-168m-pile",
    "RWKV-x070-Pile-168M-20241120-ctx4096": "rwkv7-168m-pile",
    "RWKV-x070-Pile-421M-20241127-ctx4096": "rwkv7-421m-pile",
    "RWKV-x070-Pile-1.47B-20241210-ctx4096": "rwkv7-1b47-pile",
    "RWKV-x070-Pile-1.47B-20241210-ctx4096 (inferred)": "rwkv7-1b47-pile",
    "Mamba-130M": "mamba-130m",
    "Mamba-370M": "mamba-370m",
    "Mamba-790M": "mamba-790m",
    "Mamba-1.4B": "mamba-1.4b",
    "Mamba-1-1.4B": "mamba-1.4b",
    "Mamba-2.8B": "mamba-2.8b",
    "state-spaces/mamba-130m": "mamba-130m",
    "state-spaces/mamba-370m": "mamba-370m",
    "state-spaces/mamba-1.4b": "mamba-1.4b",
}
V1 = "arXiv:2305.13048v1"  # whose curve of a family is drawn, but for these
CURVES_ELSEWHERE = {"opt": "EleutherAI/pythia", "bloom": "EleutherAI/pythia"}
LATER_CURVES = {  # of families that came after the paper
    "rwkv5": "Eagle/Finch paper arXiv:2404.05892 Table 4",
    "rwkv6": "Eagle/Finch paper arXiv:2404.05892 Table 4",
    "rwkv7": "jannalulu/lm-evaluation-harness-goose",
    "rwkv7-pile": "jannalulu/lm-evaluation-harness-goose",
    "mamba": "Mamba paper arXiv:2312.00752 Table 3",
}


def table(name: str) -> pd.DataFrame:
    """A published table as it lies here, every value a string."""
    return pd.read_csv(FOLDER / f"{name}.csv", dtype=str, keep_default_na=False)


def zero_shot_rows() -> list[Row]:
    """The published scores of the tasks of configs/tasks.yaml, each by the metric that is measured; fractions, not
    percent.
    """
    names = task_names()
    families = {entry["label"]: family for family, entry in configs.read("families").items()}
    of_model = {model: family for family, models in configs.read("models").items() for model in models}
    curves = {family: CURVES_ELSEWHERE.get(family, V1) for family in families.values()} | LATER_CURVES
    drawn: dict[tuple[Any, ...], Row] = {}
    for published in table("zero_shot").to_dict("records"):
        later = LATER_MODELS.get(published["model"])
        family, task = of_model[later] if later else families.get(published["family"]), names.get(published["task"])
        if family is None or task is None or not published["value"] or (family in LATER_CURVES and not later):
            continue
        if not published["source"].startswith(curves[family]):
            continue
        size, metric = float(published["params_b"]) * 1e9, published["metric"]
        row = {
            "source": published["source"],
            "experiment": "zeroshot",
            "task": task,
            "family": family,
            "label": published["model"],
            "parameters": size,
            "metric": metric,
            "value": float(published["value"]) / (1 if metric == "ppl" else 100),
        }
        drawn.setdefault((family, size, task, metric), row)  # the same weights may stand there twice
    return list(drawn.values())


def task_names() -> dict[str, str]:
    """The published names of tasks -> those of configs/tasks.yaml."""
    return {name: task for task, entry in configs.read("tasks").items() for name in entry.get("published", [])}


def lra_scores(source: str) -> dict[str, dict[str, float]]:
    """Long Range Arena of one source: model -> task or `Avg` -> percent, as far as numbers are printed."""
    by_model: dict[str, dict[str, float]] = {}
    for row in table("lra").to_dict("records"):
        if row["source"].startswith(source):
            scores = by_model.setdefault(row["model"], {})
            if row["value"]:
                scores[row["task"]] = float(row["value"])
    return by_model


def complexity(version: str) -> dict[str, dict[Any, str]]:
    """Table 1 of a version of the paper: model -> its row."""
    rows = table("complexity").to_dict("records")
    return {row["model"]: row for row in rows if row["source"] == f"arXiv:2305.13048{version} Table 1"}


def rows() -> list[Row]:
    """Every published value that is drawn beside a measured one."""
    return [*generation_rows(), *zero_shot_rows()]


def generation_rows() -> list[Row]:
    """The curves of the generation figures: cumulative seconds, and bytes beyond the weights."""
    drawn: list[Row] = []
    for published in table("figures_digitized").to_dict("records"):
        x, value = float(published["x"]), float(published["value"])
        name = published["model"]
        family, size, label = MODELS.get(name, (FAMILIES.get(name, name), x, name))
        memory = published["metric"].startswith("peak_memory")
        drawn.append(
            {
                "source": f"{published['source'].split(' Figure')[0]} {published['figure']}",
                "figure": published["figure"],
                "experiment": "inference",
                "protocol": "paper",
                "family": family,
                "label": label,
                "parameters": size * 1e9,
                "machine": MACHINES[published["device"]],
                "device": published["device"],
                "dtype": "float32",
                "tokens": x if published["x_name"] == "tokens_generated" else FIXED_TOKENS,
                "metric": "peak_bytes" if memory else "cumulative_s",
                "value": value * 1e9 if memory else value,
            }
        )
    return drawn
