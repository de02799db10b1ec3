"""Generation: seconds after each token, and the memory it takes beyond the weights.

Two protocols, never mixed in one figure. `fair`: every family carries its cache or state. `paper`:
Transformers run the whole sequence again for every token, as the public scripts do that likely made
the paper's Figs. 6, 10 and 11, while recurrent models carry their state. The loop is that of
rwkv_core.decode for all of them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from bench.instruments import clock, disturbance, memory
from bench.speed import agreement
from evals.experiment import AtLeast, Experiment
from rwkv_core import finite
from rwkv_core.decode import generate, greedy
from rwkv_core.errors import Unsupported, out_of_memory
from rwkv_core.spec import LanguageModel

VERSION = 4  # of 3 on: token shift and squared ReLU in one pass each; of 4 on: a few vectors by linear.c, on a CPU

PROMPT_VOCABULARY = 50_000  # the same prompt fits every family's vocabulary


def run(
    model: LanguageModel,
    *,
    device: str,
    protocol: Literal["fair", "paper"] = "fair",
    prompt_tokens: Annotated[int, AtLeast(1)] = 16,
    new_tokens: Annotated[int, AtLeast(3)] = 256,
    batch: Annotated[int, AtLeast(1)] = 1,
    repeats: Annotated[int, AtLeast(3)] = 3,
    warmup_tokens: Annotated[int, AtLeast(1)] = 8,
    seed: Annotated[int, AtLeast(0)] = 0,
    process: Annotated[int, AtLeast(1)] = 1,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Generate greedily after a random prompt, several times; then once untimed for memory.

    protocol: fair: every family carries its cache or state. paper: Transformers run the whole sequence again for every
        token.
    prompt_tokens: of the random prompt.
    new_tokens: that are generated after it.
    batch: sequences at once.
    repeats: timed runs; the median and the extremes are reported.
    warmup_tokens: generated before anything is timed.
    seed: of the random prompt.
    process: of several that do the same work, each a cell and a fresh process; what differs between them is noise.

    Returns metrics (bytes) and samples: `token_seconds` [repeats][new_tokens], seconds from the start of the prompt to
    each token, `disturbance` (of each repeat, see bench.instruments.disturbance), and `memory`, the peaks so far and
    the bytes of cache or state, used and held, at growing context.
    """
    limit = model.spec.max_tokens
    if limit is not None and prompt_tokens + new_tokens - 1 > limit:
        raise Unsupported(f"{model.spec.name} has {limit} learned positions; {prompt_tokens} + {new_tokens} do not fit")
    generator = torch.Generator().manual_seed(seed)
    bound = min(PROMPT_VOCABULARY, model.spec.vocab_size)
    prompt = torch.randint(bound, (batch, prompt_tokens), generator=generator).to(device)
    carry = protocol == "fair" or model.spec.recurrent

    generate(model, prompt, min(warmup_tokens, new_tokens), carry=carry)

    def repeat(_: int) -> tuple[Tensor, list[float]]:
        started = clock.start(device)
        tokens, _state = generate(model, prompt, new_tokens, carry=carry, mark=started.mark)
        return tokens, started.seconds()

    repeated, disturbed = disturbance.watched(repeat, repeats, disturbance.Watch(device))
    tokens = repeated[-1][0]
    metrics, curve = _untimed(model, device, tokens[:, :-1], prompt_tokens, carry)
    metrics |= {
        "parameters": model.parameter_count,
        "parameter_bytes": model.parameter_bytes,
        "context_tokens": tokens.shape[1] - 1,
        "carries_state": carry,
    }
    token_seconds = [seconds for _, seconds in repeated]
    return metrics, {"token_seconds": token_seconds, "disturbance": disturbed, "memory": curve}


@torch.inference_mode()
def _untimed(
    model: LanguageModel, device: str, tokens: Tensor, prompt_tokens: int, carry: bool
) -> tuple[dict[str, Any], list[dict[str, int]]]:
    """The same run again, `tokens` [B, T] being all that was fed: memory, and whether the state is right.

    At the prompt's length, at powers of two and at the end, it is a run of just so many tokens, since a
    cache is made with room for all of a run's. The peak so far is read around the prompt and around the
    last step. Between them the known tokens are fed in chunks, which fills the same cache in less time.
    """
    with memory.LiveTensors():
        _feed(model, tokens[:, :prompt_tokens], None, carry)  # the tracker's own first use takes some memory
    peak = memory.Peak(device)
    curve: list[dict[str, int]] = []
    with peak.tracking():
        for context in _checkpoints(prompt_tokens, tokens.shape[1]):
            state = model.reserve(context) if carry else None
            with peak.watch():
                hidden, logits, state = _feed(model, tokens[:, : prompt_tokens if carry else context], state, carry)
            if carry and context > prompt_tokens:
                finite.check(model, hidden, tokens[:, :prompt_tokens])
                for start in range(prompt_tokens, context - 1, prompt_tokens):
                    end = min(start + prompt_tokens, context - 1)
                    hidden, state = model.hidden(tokens[:, start:end], state)
                    finite.check(model, hidden, tokens[:, :end])
                with peak.watch():
                    hidden, logits, state = _feed(model, tokens[:, context - 1 : context], state, carry)
            curve.append({"context_tokens": context, **peak.metrics()})
            if carry:
                curve[-1] |= {"state_bytes": model.state_bytes(state), "state_held_bytes": model.held_bytes(state)}
            finite.check(model, hidden, tokens[:, :context])
            del state, hidden  # before the next are made
    metrics: dict[str, Any] = {k: v for k, v in curve[-1].items() if k != "context_tokens"} | peak.missing()
    if carry:
        metrics["disagreement"] = _disagreement(model, tokens, logits)
    return metrics, curve


def _checkpoints(prompt_tokens: int, total: int) -> list[int]:
    powers = (2**i for i in range(total.bit_length()))
    return sorted({prompt_tokens, total, *(n for n in powers if prompt_tokens < n < total)})


def _feed(model: LanguageModel, part: Tensor, state: Any, keep: bool) -> tuple[Tensor, Tensor, Any]:
    """One step of the decoding loop: hidden [B, T, C], the last logits [B, V] and the state."""
    hidden, state = model.hidden(part, state, keep=keep)
    logits = model.logits(hidden[:, -1])
    greedy(logits)
    return hidden, logits, state


def _disagreement(model: LanguageModel, tokens: Tensor, logits: Tensor) -> float | None:
    """How far the last logits by carried state are from those of the whole sequence, of the largest logit.

    None where the whole sequence does not fit in memory, though one token at a time did.
    """
    try:
        whole = model.logits(model.hidden(tokens, keep=False)[0][:, -1])
    except Exception as error:
        if out_of_memory(error):
            return None
        raise
    return agreement.bounded(model, logits, whole)


EXPERIMENT = Experiment(run, version=VERSION, timed=True, grows=("batch", "prompt_tokens", "new_tokens"))
