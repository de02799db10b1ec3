"""What reading and scoring would take without anything beside the model: full batches of one length, no state, and for
the vocabulary the product alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from bench.instruments import clock
from rwkv_core.spec import LanguageModel

SHAPES = ((8, 256), (4, 256), (16, 128))  # rows and tokens; the one with the least time a token counts
VECTORS = 512  # whose logits are computed together


@torch.inference_mode()
def seconds(model: LanguageModel, device: str, tokens: int, positions: int) -> float:
    """Of so many tokens at the best of the shapes, and of the logits at so many positions."""
    token_seconds = []
    for rows, length in SHAPES:
        fed = torch.randint(model.spec.vocab_size, (rows, min(length, model.spec.context_length)), device=device)
        token_seconds.append(_timed(device, lambda fed=fed: model.hidden(fed, keep=False)) / fed.numel())
    vectors = model.hidden(fed, keep=False)[0].flatten(0, 1)[:VECTORS].clone()
    head = _timed(device, lambda: model.logits(vectors))
    return tokens * min(token_seconds) + positions * head / len(vectors)


def _timed(device: str, call: Callable[..., object]) -> float:
    watch = clock.start(device)
    call()
    watch.mark()
    return watch.seconds()[0]
