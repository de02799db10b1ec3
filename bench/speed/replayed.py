"""A model's next token as a CUDA graph, in the form in which the decoding loop asks a model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.instruments import cuda_graph
from rwkv_core.spec import FixedStep, LanguageModel


class Replayed:
    """Steps of one token [B, 1] each; its `hidden` are the logits already, which `logits` passes on."""

    def __init__(self, step: FixedStep, token: Tensor, captured: cuda_graph.Captured) -> None:
        self.reset = step.reset
        self._token, self._captured = token, captured

    def hidden(self, tokens: Tensor, state: Any, **_: bool) -> tuple[Tensor, Any]:
        """tokens [B, 1] -> the logits [B, 1, V], which the next call overwrites; the state is the graph's."""
        self._token.copy_(tokens)
        self._captured.replay()
        return self._captured.output[:, None], state

    def logits(self, hidden: Tensor) -> Tensor:
        """[B, V] -> [B, V]."""
        return hidden


def of(model: LanguageModel, state: Any, steps: int, like: Tensor) -> Replayed | None:
    """So many steps of a model from that state on, of tokens like those [B, 1]; None where it has no such step, or it
    cannot be captured.
    """
    step = model.fixed(state, steps)
    if step is None:
        return None
    token = torch.zeros_like(like)
    captured = cuda_graph.capture(lambda: step.advance(token), step.reset)
    return captured and Replayed(step, token, captured)
