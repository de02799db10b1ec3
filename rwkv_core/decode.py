"""The one bare decoding loop that every family is timed with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rwkv_core.spec import LanguageModel

Pick = Callable[[Tensor], Tensor]


def greedy(logits: Tensor) -> Tensor:
    """logits [B, V] -> the likeliest token [B], chosen on the device."""
    return logits.argmax(-1)


def sampler(temperature: float, generator: torch.Generator) -> Pick:
    """A pick that draws from softmax(logits / temperature)."""

    def sample(logits: Tensor) -> Tensor:
        probabilities = torch.softmax(logits.float() / temperature, -1)
        return torch.multinomial(probabilities, 1, generator=generator)[:, 0]

    return sample


def _nothing() -> None:
    pass


@torch.inference_mode()
def generate(
    model: LanguageModel,
    prompt: Tensor,
    new_tokens: int,
    *,
    carry: bool = True,
    state: object = None,
    pick: Pick = greedy,
    mark: Callable[[], None] = _nothing,
) -> tuple[Tensor, object]:
    """prompt [B, T] -> the prompt with `new_tokens` more [B, T + new_tokens], and the last state.

    state: what has been read before the prompt; it is used up.
    carry: go on from the state or cache; False runs the whole sequence again for every token, as the
    `paper` protocol does with Transformers. The head is computed at the last position only; no token
    ends the text. `mark` is called after each token.
    """
    tokens = fed = prompt
    if carry and state is None:
        state = model.reserve(prompt.shape[1] + new_tokens - 1)
    for _ in range(new_tokens):
        hidden, state = model.hidden(fed, state, keep=carry, last=True)
        token = pick(model.logits(hidden[:, -1]))[:, None]
        mark()
        tokens = torch.cat([tokens, token], 1)
        if carry:
            fed = token
        else:
            fed, state = tokens, None
    return tokens, state
