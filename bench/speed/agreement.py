"""How far logits by what was carried are from those of the same tokens read at once: beyond a bound it is wrong."""

from __future__ import annotations

import torch
from torch import Tensor

from rwkv_core.spec import LanguageModel

# of the largest logit: beyond it the carried state is wrong and no time is reported
AGREEMENT = {torch.float32: 1e-3, torch.float16: 0.03, torch.bfloat16: 0.1}


def bounded(model: LanguageModel, carried: Tensor, at_once: Tensor) -> float:
    """The largest difference of logits [B, V], of the largest logit. Raises RuntimeError where it is beyond the bound
    of their type.
    """
    difference = float((carried - at_once).abs().max() / at_once.abs().max())
    half = carried.itemsize != model.itemsize  # of a runtime that computes in half precision and gives float32
    if not difference <= (max(AGREEMENT.values()) if half else AGREEMENT[carried.dtype]):  # so for NaN too
        raise RuntimeError(f"carried state and whole sequence disagree by {difference:.1e} of the largest logit")
    return difference
