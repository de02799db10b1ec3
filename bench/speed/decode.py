"""What a token takes at growing context: a context is filled once, in chunks, and at each stop some tokens are timed.

The time to the first token of a prompt of that length comes from the same pass. Every family carries its cache or
state; the loop is that of rwkv_core.decode for all of them.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch

from bench.instruments import disturbance, limits
from bench.speed.sweep import Sweep
from evals.experiment import AtLeast, Experiment, Numbers
from rwkv_core.decode import generate
from rwkv_core.errors import Unsupported, out_of_memory
from rwkv_core.spec import LanguageModel

VERSION = 2  # of 2 on: chunks of 1,024 tokens, attention of a chunk without a mask and of a token in C

CONTEXTS = Numbers(1)
VOCABULARY = 50_000  # the same tokens fit every family's
WARM_UP = 8  # tokens


def run(
    model: LanguageModel,
    *,
    device: str,
    contexts: Annotated[str, CONTEXTS] = "16, 128, 512, 1024, 2048, 4096, 8192",
    steps: Annotated[int, AtLeast(3)] = 16,
    repeats: Annotated[int, AtLeast(3)] = 3,
    chunk: Annotated[int, AtLeast(1)] = 1024,
    batch: Annotated[int, AtLeast(1)] = 1,
    seed: Annotated[int, AtLeast(0)] = 0,
    process: Annotated[int, AtLeast(1)] = 1,
    graph: bool = True,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a context of random tokens in chunks; at each of several lengths time the prompt so far, and tokens more.

    contexts: tokens that are read before the timed ones. The curve ends where positions or memory do.
    steps: tokens that are generated at each stop, each of them timed.
    repeats: how often they are, from the same state.
    chunk: tokens that are read at once. A context of no more is read in one piece, a longer one goes on from the one
        before. A model that cannot go on by many tokens reads every context in one piece.
    batch: sequences at once.
    seed: of the random tokens.
    process: of several that do the same work, each a cell and a fresh process; what differs between them is noise.
    graph: on CUDA replay a step as a CUDA graph, without the Python between its kernels, where a model allows that.

    Returns metrics (`bandwidth` in bytes and `operations` a second, which this device reached in this process; `ended`,
    why the curve is shorter than was asked for; on CUDA `graphed`, whether steps were a graph) and samples: `points`,
    one a context (`first_token_seconds`, `step_seconds` [repeats][steps], of both which repeats were disturbed,
    `joules` of each repeat, `state_bytes` of the cache or state, what a chunk and a step take beyond it, and the
    `disagreement` of what was carried), and `disturbance`.
    """
    wanted = CONTEXTS.read(contexts)
    limit = model.spec.max_tokens
    reached = [n for n in wanted if limit is None or n + steps <= limit]
    if not reached:
        raise Unsupported(f"{model.spec.name} has {limit} learned positions; {wanted[0]} + {steps} do not fit")
    ended = f"{limit} learned positions" if len(reached) < len(wanted) else ""
    generator = torch.Generator().manual_seed(seed)
    bound = min(VOCABULARY, model.spec.vocab_size)
    tokens = torch.randint(bound, (batch, reached[-1] + 1), generator=generator).to(device)
    chunk = chunk if model.ragged else reached[-1]
    sweep = Sweep(model, device, tokens, steps, repeats, chunk, graph and device == "cuda")
    generate(model, tokens[:, :WARM_UP], WARM_UP)
    points: list[dict[str, Any]] = []
    try:
        for point in sweep.points(reached):
            points.append(point)
    except Exception as error:
        if not points or not out_of_memory(error):
            raise
        ended = f"no memory for more than {points[-1]['context_tokens']} tokens"
    metrics = {
        "parameters": model.parameter_count,
        "parameter_bytes": model.parameter_bytes,
        "bandwidth": limits.bandwidth(device),
        "operations": limits.operations(device, sweep.dtype),
        **({"ended": ended} if ended else {}),
        **({"graphed": sweep.graphed} if device == "cuda" else {}),
        **({"joules_missing": sweep.meter.missing} if sweep.meter.missing else {}),
    }
    return metrics, {"points": points, "disturbance": disturbance.joined(sweep.disturbed)}


EXPERIMENT = Experiment(run, version=VERSION, timed=True, grows=("batch",))
