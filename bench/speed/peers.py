"""Our RWKV as a whole beside other implementations of it, with the same weights: prompt, training step, one token.

The peers are transformers' RwkvForCausalLM, which knows version 4 alone, and, where it is installed, pip `rwkv`, the
author's inference package, which knows every version and does not train. Beside them stand the products of the model's
matrices alone.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from importlib import metadata
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.instruments.race import race
from evals.experiment import AtLeast, Experiment
from rwkv_core import architectures, finite
from rwkv_core.errors import BadInput, Unsupported
from rwkv_core.linear import linear, serves
from rwkv_core.runtimes import pip_rwkv, transformers_rwkv
from rwkv_core.rwkv import v4
from rwkv_core.rwkv.model import RWKV
from rwkv_core.spec import LanguageModel

VERSION = 5  # of 3 on: nobody finds memory that another has freed; of 4 on: the products of all tasks; of 5 on: in C

AGREEMENT = {torch.float32: 1e-4, torch.float16: 0.03, torch.bfloat16: 0.1}  # of the largest entry
CONTEXT = 16  # tokens that the state has seen before a token is timed
PRODUCTS = {"prompt": "gemm", "train": "gemm, three times", "token": "gemv"}  # of each task's matrices
IN_C = " in C"  # behind the name of the same products by linear.c
TABLES = (".time_decay", ".time_faaaa", ".r_k")  # weights of two axes that nothing is multiplied with

Step = Callable[[], Tensor]


def run(
    model: LanguageModel,
    *,
    device: str,
    task: Literal["prompt", "train", "token"] = "token",
    batch: Annotated[int, AtLeast(1)] = 1,
    tokens: Annotated[int, AtLeast(1)] = 1,
    rounds: Annotated[int, AtLeast(3)] = 15,
    seed: Annotated[int, AtLeast(0)] = 0,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Time one task of an RWKV with every implementation of it, in turn, and the products of its matrices alone.

    task: prompt: the last logits of a prompt. train: its loss, forward and backward. token: the next logits from a
        state.
    batch: sequences at once.
    tokens: of a prompt, or of what is trained on.
    rounds: turns that each contender gets.
    seed: of the random inputs and of the order of turns.

    Returns metrics and samples as `kernels` does; `implementations` says what each contender is.
    """
    if not isinstance(model, RWKV):
        if architectures.of(model.spec.architecture).runtime == "native":
            raise BadInput(f"{model.spec.name}: every runtime of it is raced in any case; leave `runtime` out")
        raise Unsupported(f"{model.spec.name} is no RWKV: there are no other implementations of it to race here")
    ids = torch.randint(
        model.spec.vocab_size, (batch, CONTEXT + tokens), generator=torch.Generator().manual_seed(seed)
    ).to(device)
    build = {"prompt": _prompt, "train": _train, "token": _token}[task]
    with torch.inference_mode(task != "train"):
        calls = build(model, ids[:, CONTEXT:] if task != "token" else ids)
        ours = calls["ours"]()
        if not bool(ours.isfinite().all()):
            finite.refuse(model, ids)
        errors = {name: float((call() - ours).abs().max() / ours.abs().max()) for name, call in calls.items()}
        for name, error in errors.items():
            if not error <= AGREEMENT[ours.dtype]:
                raise RuntimeError(f"{name} and our results are {error:.1e} of the largest entry apart")
        calls[PRODUCTS[task]] = _products(model, batch, task, tokens)
        if task == "token" and serves(model.emb.weight[:batch], model.head.weight):
            calls[PRODUCTS[task] + IN_C] = _products(model, batch, task, tokens, _in_c)
        graphs = list(calls) if task == "token" else ()
        samples, graphed = race(calls, device, rounds, graphs, seed, fresh=True)
    metrics = {
        "errors": errors,
        "graphed": graphed,
        "threads": torch.get_num_threads(),
        "implementations": {name: text for name, text in _implementations(model, device).items() if name in calls},
    }
    return metrics, samples


def _implementations(model: RWKV, device: str) -> dict[str, str]:
    weight = model.emb.weight
    texts = {
        "ours": f"this suite's model: its recurrence by {model.attention}, products of a few vectors by `linear`",
        "transformers": f"RwkvForCausalLM of transformers {metadata.version('transformers')}",
        PRODUCTS["token"]: "each matrix that a token reads times a vector by torch, nothing else",
        PRODUCTS["token"] + IN_C: "the same as the models here multiply: by linear.c, low-rank matrices by torch",
        PRODUCTS["prompt"]: "each matrix times the vectors of all tokens, the head times the last one's, nothing else",
        PRODUCTS["train"]: "each matrix times the vectors of all tokens, and the products of its two gradients",
    }
    if pip_rwkv.installed():
        switches = {"RWKV_JIT_ON": "1", "RWKV_CUDA_ON": "0"}  # with what the package takes where they are not set
        ways = [f"strategy {device} {pip_rwkv.STRATEGIES[weight.dtype]}"]
        ways += [f"{name}={os.environ.get(name, default)}" for name, default in switches.items()]
        texts["pip rwkv"] = f"rwkv {metadata.version('rwkv')}; {', '.join(ways)}"
    return texts


def _prompt(model: RWKV, ids: Tensor) -> dict[str, Step]:
    calls: dict[str, Step] = {"ours": lambda: model.logits(model.hidden(ids)[0][:, -1])}
    if model.version is v4:
        peer = transformers_rwkv.converted(model)
        calls["transformers"] = lambda: peer.head(peer.rwkv(ids, use_cache=False).last_hidden_state[:, -1])
    if pip_rwkv.installed() and len(ids) == 1:
        author = pip_rwkv.converted(model).forward  # (tokens, state) -> the last logits [V] and the state
        tokens = ids[0].tolist()
        calls["pip rwkv"] = lambda: author(tokens, None)[0][None]
    return calls


def _train(model: RWKV, ids: Tensor) -> dict[str, Step]:
    """Every call gives the gradient of the embedding, which comes last and through everything."""
    models: dict[str, nn.Module] = {"ours": model}
    embeddings = {"ours": model.emb.weight}
    logits: dict[str, Callable[[Tensor], Tensor]] = {"ours": model}
    if model.version is v4:
        peer = transformers_rwkv.converted(model).train()
        models["transformers"], embeddings["transformers"] = peer, peer.rwkv.embeddings.weight
        logits["transformers"] = lambda x: peer(x, use_cache=False).logits

    def step(name: str) -> Tensor:
        loss = F.cross_entropy(logits[name](ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        gradient = embeddings[name].grad
        assert gradient is not None
        models[name].zero_grad()
        return gradient

    return {name: functools.partial(step, name) for name in logits}


def _token(model: RWKV, ids: Tensor) -> dict[str, Step]:
    """The first call gives the logits of the last token; the peers change their state in place, so that later calls go
    on from it, which costs the same.
    """
    last, before = ids[:, -1:], ids[:, :-1]
    _, state = model.hidden(before)
    calls: dict[str, Step] = {"ours": lambda: model.logits(model.hidden(last, state)[0][:, -1])}
    if model.version is v4:
        peer = transformers_rwkv.converted(model)
        peer_state = peer(before, use_cache=True).state
        calls["transformers"] = lambda: peer(last, state=peer_state, use_cache=True).logits[:, -1]
    if pip_rwkv.installed() and len(ids) == 1:
        author = pip_rwkv.converted(model).forward
        _, author_state = author(before[0].tolist(), None)
        token = last[0].tolist()
        calls["pip rwkv"] = lambda: author(token, author_state)[0][None]
    return calls


def _in_c(vectors: Tensor, matrix: Tensor) -> Tensor:
    return linear(vectors, matrix.mT) if matrix.dim() == 2 else vectors @ matrix


def _products(
    model: RWKV, batch: int, task: str, tokens: int, multiply: Callable[[Tensor, Tensor], Tensor] = torch.matmul
) -> Step:
    """Every matrix times as many vectors of ones as the task multiplies it with; in training twice more."""
    rows = batch * tokens if task != "token" else batch
    pairs: list[tuple[Tensor, Tensor]] = []
    for name, p in model.named_parameters():
        if p.squeeze().dim() < 2 or name.startswith("emb.") or name.endswith(TABLES):
            continue
        matrix = p.detach().mT if name.endswith(".weight") else p.detach()  # [in, out], or several of them
        count = batch if task == "prompt" and name.startswith("head.") else rows
        pairs.append((p.new_ones(*matrix.shape[:-2], count, matrix.shape[-2]).detach(), matrix))

    def products() -> Tensor:
        for vectors, matrix in pairs:
            product = multiply(vectors, matrix)
            if task == "train":
                torch.matmul(product, matrix.mT)
                torch.matmul(vectors.mT, product)
        return product

    return products


EXPERIMENT = Experiment(run, version=VERSION, timed=True, grows=("batch", "tokens"))
