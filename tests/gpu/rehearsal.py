"""A cell made so small that the CPU of a laptop measures it at once: the same code, nothing worth reading."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from bench import cells
from reports.records.cell import Cell
from rwkv_core import models
from rwkv_core.spec import ModelSpec

SMALLEST = {  # of each family
    "rwkv4": "rwkv4-169m",
    "rwkv5": "rwkv5-0b4",
    "rwkv6": "rwkv6-1b6",
    "rwkv7": "rwkv7-0b1",
    "pythia": "pythia-160m",
    "opt": "opt-125m",
    "bloom": "bloom-560m",
    "gpt-neo": "gpt-neo-125m",
    "llama": "smollm2-135m",
}
LARGE = 10e6  # parameters, from which on a model is replaced
VOCABULARY = 2048  # the pocket world's tokenizer fits
SHAPE = {
    **dict.fromkeys(("hidden_size", "attention_hidden_size", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim"), 128),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "num_attention_heads", "n_head", "num_heads"), 2),
    "num_key_value_heads": 1,
    "attention_types": [[["global", "local"], 1]],
    "head_size": 16,
    **dict.fromkeys([f"{name}_low_rank_dim" for name in ("mix", "decay", "a", "v", "gate")], 8),
    "vocab_size": VOCABULARY,
}
MOST = {
    "batch": 1,
    "context": 16,
    "docs": 2,
    "eval_every": 2,
    "heads": 2,
    "inner": 32,
    "layers": 1,
    "length": 32,
    "most": 4,
    "new_tokens": 4,
    "process": 1,
    "repeats": 2,
    "rounds": 3,
    "size": 2,
    "steps": 4,
    "test": 8,
    "test_count": 8,
    "tokens": 8,
    "train_count": 16,
    "validation_count": 8,
    "warmup_tokens": 1,
    "width": 16,
}


def tiny(cell: Cell, work: Path) -> Cell:
    """The cell on the CPU with a tiny model of its family; what it keeps meanwhile goes into `work`."""
    params = {key: min(value, MOST[key]) if key in MOST and value else value for key, value in cell.params.items()}
    if "prompt_tokens" in params:
        params["prompt_tokens"] = params["prompt_tokens"].bit_length() // 3  # so that most stay different
    if "contexts" in params:
        params["contexts"] = "2, 5"
    if "docs" in params:  # where 0 stands for all
        params["docs"] = MOST["docs"]
    paths = {**cell.paths, **({"work": str(work)} if "work" in params else {})}
    dtype = "int8" if cell.dtype == "int4" else cell.dtype  # which no CPU has
    return cells.make(cell.experiment, _tiny(cell.model), "cpu", dtype, params, cell.threads, paths)


def _tiny(model: ModelSpec | None) -> ModelSpec | None:
    if model is None or model.parameters < LARGE:
        return model
    kinds = {"attention": model.attention, "cache": model.cache, "runtime": model.runtime}
    like = models.find(SMALLEST[model.family], weights=model.weights, **kinds)
    shape = {key: SHAPE.get(key, value) for key, value in like.architecture.items()}
    label = f"tiny {like.label.split()[0]}"
    return dataclasses.replace(like, name=f"tiny-{model.family}", label=label, architecture=shape, parameters=100_000)
