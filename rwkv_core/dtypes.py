"""The values of a matrix's `dtype`: what a model computes in, and what its weights take. Standard library only.

In `int8` and `int4` the matrices alone are smaller; everything else and all arithmetic stay in another type.
"""

from __future__ import annotations

QUANTISED = ("int8", "int4")
ITEMSIZES = {"float32": 4, "bfloat16": 2, "float16": 2}  # of a number
DTYPES = (*ITEMSIZES, *QUANTISED)
SCALE_BYTES = 4  # of a row of int8
FEWEST = 1 << 15  # numbers of a matrix that is quantised
LOW_RANK = 8  # times shorter than the model is wide: a side of a matrix that stays as it is


def computed(dtype: str, device: str) -> str:
    """The type of activations, states and arithmetic, in which the weights are loaded too."""
    if dtype not in QUANTISED:
        return dtype
    return "bfloat16" if device == "cuda" else "float32"


def itemsize(dtype: str, device: str) -> int:
    """Bytes of a number of a state."""
    return ITEMSIZES[computed(dtype, device)]


def weight_bytes(dtype: str, device: str) -> float:
    """Bytes of a number of a large matrix, scales apart."""
    return {"int8": 1, "int4": 0.5}.get(dtype, itemsize(dtype, device))


def quantises(rows: int, columns: int, width: int) -> bool:
    """Whether a matrix of a model of that width is worth it: small ones cost no time, and those of low rank, which
    decide on decays and steps, few bytes and much precision.
    """
    return rows * columns >= FEWEST and LOW_RANK * min(rows, columns) >= width


def table_bytes(rows: int, width: int, dtype: str, device: str) -> int:
    """Of an embedding that is no head; on CUDA its type is that of the activations."""
    if dtype == "int8" and device == "cpu" and quantises(rows, width, width):
        return rows * (width + SCALE_BYTES)
    return rows * width * itemsize(dtype, device)
