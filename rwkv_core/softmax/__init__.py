"""What scoring needs of logits: the logarithm of the sum of their exponentials, and the likeliest word. On a CPU in C
in one sweep, where torch's functions take several.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rwkv_core import finite
from rwkv_core.wkv.compiled import Library

LIBRARY = Library(__file__, sizes=2, pointers=4)


class Summary(NamedTuple):
    """Of rows of logits, [N] each. log_sum: in float64, NaN where a logit is not finite; largest: the largest logit;
    place: where it stands first. The last two mean nothing where the first is NaN.
    """

    log_sum: Tensor
    largest: Tensor
    place: Tensor


def summary(logits: Tensor) -> Summary:
    """Of logits [N, V] in float32."""
    if LIBRARY.lacks(logits.device, logits.dtype) is not None:
        largest, place = logits.max(-1)
        return Summary(logits.logsumexp(-1).double().where(finite.rows(logits), torch.nan), largest, place)
    rows = len(logits)
    result = Summary(
        logits.new_empty(rows, dtype=torch.float64), logits.new_empty(rows), logits.new_empty(rows, dtype=torch.long)
    )
    LIBRARY.run(logits.shape, logits.contiguous(), *result)
    return result


def joined(one: Summary, other: Summary, words: int) -> Summary:
    """Of both together, where the other's rows begin after so many words."""
    later = other.largest > one.largest
    return Summary(
        torch.logaddexp(one.log_sum, other.log_sum),
        other.largest.where(later, one.largest),
        (other.place + words).where(later, one.place),
    )
