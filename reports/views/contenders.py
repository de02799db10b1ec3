"""What contenders of races are called, how they look, and in which shape they ran."""

from __future__ import annotations

import pandas as pd

SHAPE = ["what", "batch", "tokens", "channels", "threads"]
NAMES = {
    "floor": "memory floor",
    "matrix product": "arithmetic floor",
    "loop": "plain loop in torch",
    "numba": "loops in numba, one thread",
    "torch.compile": "loop under torch.compile",
    "transformers": "transformers",
    "torch": "ours: torch",
    "c": "ours: C",
    "triton": "ours: Triton",
    "fla": "flash-linear-attention",
    "ours": "ours",
    "pip rwkv": "pip rwkv",
    "llama.cpp Q8_0": "llama.cpp, weights quantised to 8 bits",
    "llama.cpp Q4_0": "llama.cpp, weights quantised to 4 bits",
    "torch dynamic int8": "torch, weights quantised to 8 bits",
    "gemv": "its weights times vectors",
    "gemv in C": "its weights times vectors, in C",
    "gemm": "its products alone",
    "gemm, three times": "its products alone, and their gradients'",
}
# families in whose colours and with whose markers contenders are drawn
COLOURS = {
    "c": "rwkv4",
    "triton": "rwkv4",
    "torch": "gpt-neo",
    "loop": "pythia",
    "numba": "pythia",
    "torch.compile": "mamba",
    "transformers": "bloom",
    "fla": "opt",
    "ours": "rwkv4",
    "pip rwkv": "rwkv6",
    "llama.cpp F32": "llama",
    "llama.cpp Q8_0": "opt",
    "llama.cpp Q4_0": "gpt-neo",
    "torch dynamic int8": "mamba",
    "gemv": "bloom",
    "gemv in C": "pythia",
}
OURS = ("triton", "c", "ours", "torch")
PRODUCT = "matrix product"  # its samples are of a product, its rows of the recurrence's multiply-adds at that speed
PRODUCTS = ("gemv", "gemv in C", "gemm", "gemm, three times")  # of a whole model's matrices
NOT_COMPARED = (*OURS, "floor", PRODUCT, *PRODUCTS)
EAGER = " eager"  # behind the names of those that ran as a CUDA graph too, and here without it


def what(row: pd.Series, several: bool) -> str:
    """What was raced; whose it was where there are several."""
    return f"{row.what}, {row.label}" if several else str(row.what)


def name(row: pd.Series) -> str:
    return named(row.contender, row.runtime) + (", CUDA graph" if row.graphed else "")


def named(contender: str, runtime: str | None = None) -> str:
    """What is before a comma by its name in tables; what follows says how it ran. runtime: of the model."""
    plain = base(contender)
    how = contender.removeprefix(plain)
    shown = "transformers as here" if (plain, runtime) == ("ours", "transformers") else NAMES.get(plain, plain)
    return shown + (", eager" if how == EAGER else how)


def base(contender: str) -> str:
    """A contender without how it ran."""
    return contender.partition(",")[0].removesuffix(EAGER)


def several(chosen: pd.DataFrame) -> bool:
    """Whether more than one model stands for one shape."""
    return bool(chosen.groupby(SHAPE, dropna=False).label.nunique().max() > 1)


def shape(row: pd.Series) -> str:
    width = "" if pd.isna(row.channels) else f", {row.channels:.0f}"
    return f"({row.batch}, {row.tokens}{width})"
