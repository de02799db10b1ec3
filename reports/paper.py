"""Published numbers, as rows of the same form as the measured ones."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from reports.rows import Row

FOLDER = Path(__file__).parent / "paper"

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


def table(name: str) -> pd.DataFrame:
    """A published table as it lies in reports/paper, every value a string."""
    return pd.read_csv(FOLDER / f"{name}.csv", dtype=str, keep_default_na=False)


def rows() -> list[Row]:
    """The curves of the generation figures: cumulative seconds, and bytes beyond the weights."""
    found: list[Row] = []
    for published in table("figures_digitized").to_dict("records"):
        x, value = float(published["x"]), float(published["value"])
        name = published["model"]
        family, size, label = MODELS.get(name, (FAMILIES.get(name, name), x, name))
        memory = published["metric"].startswith("peak_memory")
        found.append(
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
    return found
