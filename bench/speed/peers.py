"""A model as a whole beside other programs that compute it, with the same weights: prompt, training step, one token.

Of RWKV the others are transformers' RwkvForCausalLM, which knows version 4 alone, and, where they are installed, pip
`rwkv`, the author's inference package, which knows every version and does not train, and llama.cpp, which knows 6 and
7; of Transformers llama.cpp. Some have quantised weights and are named so. Beside them stand the products of the
model's matrices alone.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.instruments.race import race
from bench.speed import gguf_files, llama_cpp, peer, torch_int8
from bench.speed.peer import Peer, Reasons, Step
from evals.experiment import AtLeast, Experiment
from rwkv_core import architectures, finite
from rwkv_core.errors import BadInput, Unsupported
from rwkv_core.linear import linear, serves
from rwkv_core.runtimes import pip_rwkv, transformers_rwkv
from rwkv_core.rwkv import v4
from rwkv_core.rwkv.model import RWKV
from rwkv_core.spec import LanguageModel
from rwkv_core.torch_model import TorchModel

VERSION = 5  # of 3 on: nobody finds memory that another has freed; of 4 on: all tasks' products; of 5 on: in C

AGREEMENT = {torch.float32: 1e-4, torch.float16: 0.03, torch.bfloat16: 0.1}  # of the largest entry
CONTEXT = 16  # tokens that the state has seen before a token is timed, where nothing else is said
PRODUCTS = {"prompt": "gemm", "train": "gemm, three times", "token": "gemv"}  # of each task's matrices
IN_C = " in C"  # behind the name of the same products by linear.c
PRODUCT_TEXTS = {
    PRODUCTS["token"]: "each matrix that a token reads times a vector by torch, nothing else",
    PRODUCTS["token"] + IN_C: "the same as the models here multiply: by linear.c, low-rank matrices by torch",
    PRODUCTS["prompt"]: "each matrix times the vectors of all tokens, the head times the last one's, nothing else",
    PRODUCTS["train"]: "each matrix times the vectors of all tokens, and the products of its two gradients",
}
TABLES = (".time_decay", ".time_faaaa", ".r_k")  # weights of two axes that nothing is multiplied with


def run(
    model: LanguageModel,
    *,
    device: str,
    task: Literal["prompt", "train", "token"] = "token",
    batch: Annotated[int, AtLeast(1)] = 1,
    tokens: Annotated[int, AtLeast(1)] = 1,
    context: Annotated[int, AtLeast(1)] = CONTEXT,
    rounds: Annotated[int, AtLeast(3)] = 15,
    seed: Annotated[int, AtLeast(0)] = 0,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Time one task of a model with every program that is here for it, in turn, and the products of its matrices alone.

    task: prompt: the last logits of a prompt. train: its loss, forward and backward. token: the next logits from a
        state or cache.
    batch: sequences at once.
    tokens: of a prompt, or of what is trained on.
    context: tokens that the state or cache has seen before a token is timed.
    rounds: turns that each contender gets.
    seed: of the random inputs and of the order of turns.

    Returns metrics and samples as `kernels` does; `implementations` says what each contender is, `left_out` why others
    are none, `distances` how far those with quantised weights are from ours (see peer.distance).
    """
    _check(model, task, context)
    shape = (batch, context + tokens)
    ids = torch.randint(model.spec.vocab_size, shape, generator=torch.Generator().manual_seed(seed)).to(device)
    with torch.inference_mode(task != "train"):
        given = ids if task == "token" else ids[:, context:]
        contenders = {"train": _train, "prompt": _prompt, "token": _token}[task](model, given)
        others, left_out = _others(model, task, given, seed) if task != "train" else ({}, {})
        contenders |= others
        calls = {name: contender.call for name, contender in contenders.items()}
        ours = calls["ours"]()
        if not bool(ours.isfinite().all()):
            finite.refuse(model, ids)
        errors = {name: float((call() - ours).abs().max() / ours.abs().max()) for name, call in calls.items()}
        for name, error in errors.items():
            bound = contenders[name].bound or AGREEMENT[ours.dtype]
            if not (math.isfinite(error) and error <= bound):
                raise RuntimeError(f"{name} and our results are {error:.1e} of the largest entry apart")
        calls[PRODUCTS[task]] = _products(model, batch, task, tokens)
        head = _head(model)
        if task == "token" and serves(head[:batch], head):
            calls[PRODUCTS[task] + IN_C] = _products(model, batch, task, tokens, _in_c)
        graphs = list(calls) if task == "token" else ()
        samples, graphed = race(calls, device, rounds, graphs, seed, fresh=True)
    texts = {name: contender.what for name, contender in contenders.items()} | PRODUCT_TEXTS
    metrics = {
        "errors": errors,
        "graphed": graphed,
        "threads": torch.get_num_threads(),
        "implementations": {name: text for name, text in texts.items() if name in calls},
        "left_out": left_out,
        "distances": {name: dict(one.distance) for name, one in contenders.items() if one.distance},
    }
    return metrics, samples


def _check(model: LanguageModel, task: str, context: int) -> None:
    """Raises BadInput or Unsupported where there is nothing to race."""
    if task != "token" and context != CONTEXT:
        raise BadInput("`context` is what a token follows: leave it out where the task is `prompt` or `train`")
    if isinstance(model, TorchModel) and model.quantised:
        raise Unsupported(f"{model.spec.name}: nobody else has its quantised weights; write `dtype: float32`")
    if isinstance(model, RWKV):
        return
    if architectures.of(model.spec.architecture).runtime == "native":
        raise BadInput(f"{model.spec.name}: every runtime of it is raced in any case; leave `runtime` out")
    if model.spec.architecture["model_type"] not in gguf_files.LAYOUTS:
        raise Unsupported(f"{model.spec.name}: there are no other implementations of it to race here")
    if task == "train":
        raise Unsupported(f"{model.spec.name}: there are no other implementations to race its training with here")


def _prompt(model: LanguageModel, ids: Tensor) -> dict[str, Peer]:
    """Ours makes the cache or state, as generation needs it."""

    def ours() -> Tensor:
        return model.logits(model.hidden(ids, model.reserve(ids.shape[1]))[0][:, -1])

    contenders = {"ours": Peer(ours, _ours(model))}
    if not isinstance(model, RWKV):
        return contenders
    if model.version is v4:
        other = transformers_rwkv.converted(model)

        def last() -> Tensor:
            return other.head(other.rwkv(ids, use_cache=False).last_hidden_state[:, -1])

        contenders["transformers"] = Peer(last, _transformers())
    if pip_rwkv.installed() and len(ids) == 1:
        author = pip_rwkv.converted(model).forward  # (tokens, state) -> the last logits [V] and the state
        tokens = ids[0].tolist()
        contenders["pip rwkv"] = Peer(lambda: author(tokens, None)[0][None], _pip_rwkv(model))
    return contenders


def _train(model: Any, ids: Tensor) -> dict[str, Peer]:
    """Every call gives the gradient of the embedding, which comes last and through everything."""
    models: dict[str, nn.Module] = {"ours": model}
    embeddings = {"ours": model.emb.weight}
    logits: dict[str, Callable[[Tensor], Tensor]] = {"ours": model}
    texts = {"ours": _ours(model)}
    if model.version is v4:
        other = transformers_rwkv.converted(model).train()
        models["transformers"], embeddings["transformers"] = other, other.rwkv.embeddings.weight
        logits["transformers"] = lambda x: other(x, use_cache=False).logits
        texts["transformers"] = _transformers()

    def step(name: str) -> Tensor:
        loss = F.cross_entropy(logits[name](ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        gradient = embeddings[name].grad
        assert gradient is not None
        models[name].zero_grad()
        return gradient

    return {name: Peer(functools.partial(step, name), text) for name, text in texts.items()}


def _token(model: LanguageModel, ids: Tensor) -> dict[str, Peer]:
    """The first call gives the logits of the last token; the peers change their state in place, so that later calls go
    on from it, which costs the same.
    """
    contenders = {"ours": Peer(_next(model, ids), _ours(model))}
    if not isinstance(model, RWKV):
        return contenders
    last, before = ids[:, -1:], ids[:, :-1]
    if model.version is v4:
        other = transformers_rwkv.converted(model)
        state = other(before, use_cache=True).state
        contenders["transformers"] = Peer(
            lambda: other(last, state=state, use_cache=True).logits[:, -1], _transformers()
        )
    if pip_rwkv.installed() and len(ids) == 1:
        author = pip_rwkv.converted(model).forward
        _, author_state = author(before[0].tolist(), None)
        token = last[0].tolist()
        contenders["pip rwkv"] = Peer(lambda: author(token, author_state)[0][None], _pip_rwkv(model))
    return contenders


def _next(model: Any, ids: Tensor) -> Step:
    """The logits of the last token, always after the same others. model: an RWKV or an HFModel."""
    last, before = ids[:, -1:], ids[:, :-1]
    _, state = model.hidden(before, model.reserve(ids.shape[1]))

    def step() -> Tensor:
        logits: Tensor = model.logits(model.hidden(last, model.fork(state))[0][:, -1])
        return logits

    return step


def _others(model: Any, task: str, ids: Tensor, seed: int) -> tuple[dict[str, Peer], Reasons]:
    """llama.cpp, and torch with quantised weights; why some that could be are not there."""
    text = peer.text(model, ids.device, seed)
    contenders, left_out = llama_cpp.contenders(model, task, ids, text)
    if isinstance(model, RWKV) and not pip_rwkv.installed():
        left_out["pip rwkv"] = "not installed; `pip install rwkv`"
    if task != "token":
        return contenders, left_out
    if reason := peer.elsewhere(model) or torch_int8.lacks():
        left_out[torch_int8.NAME] = reason
        return contenders, left_out
    twin = torch_int8.quantised(model)
    moved = peer.distance(text.logits, peer.logits(twin, text.tokens))
    contenders[torch_int8.NAME] = Peer(_next(twin, ids), torch_int8.WHAT, peer.QUANTISED, moved)
    return contenders, left_out


def _ours(model: LanguageModel) -> str:
    if isinstance(model, RWKV):
        return f"this suite's model: its recurrence by {model.attention}, products of a few vectors by `linear`"
    return (
        f"transformers {metadata.version('transformers')} as this suite runs it: attention {model.attention}, keys and "
        f"values {model.cache}, products of a few vectors by `linear`"
    )


def _transformers() -> str:
    return f"RwkvForCausalLM of transformers {metadata.version('transformers')}"


def _pip_rwkv(model: RWKV) -> str:
    weight = model.emb.weight
    switches = {"RWKV_JIT_ON": "1", "RWKV_CUDA_ON": "0"}  # with what the package takes where they are not set
    ways = [f"strategy {weight.device.type} {pip_rwkv.STRATEGIES[weight.dtype]}"]
    ways += [f"{name}={os.environ.get(name, default)}" for name, default in switches.items()]
    return f"rwkv {metadata.version('rwkv')}; {', '.join(ways)}"


def _in_c(vectors: Tensor, matrix: Tensor) -> Tensor:
    return linear(vectors, matrix.mT) if matrix.dim() == 2 else vectors @ matrix


def _head(model: Any) -> Tensor:
    """The matrix [V, C] that gives the logits."""
    head: Tensor = (model.head if isinstance(model, RWKV) else model.causal.get_output_embeddings()).weight
    return head.detach()


def _matrices(model: Any) -> Iterator[Tensor]:
    """Every matrix [in, out], or several of them as one, that the vectors of all tokens are multiplied with."""
    if isinstance(model, RWKV):
        for name, p in model.named_parameters():
            if p.squeeze().dim() >= 2 and not name.startswith(("emb.", "head.")) and not name.endswith(TABLES):
                yield p.detach().mT if name.endswith(".weight") else p.detach()
    else:
        head = model.causal.get_output_embeddings()
        layers = (module for module in model.modules() if isinstance(module, nn.Linear) and module is not head)
        yield from (layer.weight.detach().mT for layer in layers)


def _products(
    model: Any, batch: int, task: str, tokens: int, multiply: Callable[[Tensor, Tensor], Tensor] = torch.matmul
) -> Step:
    """Every matrix times as many vectors of ones as the task multiplies it with; in training twice more."""
    rows = batch * tokens if task != "token" else batch
    pairs = [
        (matrix.new_ones(*matrix.shape[:-2], count, matrix.shape[-2]), matrix)
        for count, matrices in (
            (rows, _matrices(model)),
            (batch if task == "prompt" else rows, [_head(model).mT]),
        )
        for matrix in matrices
    ]

    def products() -> Tensor:
        for vectors, matrix in pairs:
            product = multiply(vectors, matrix)
            if task == "train":
                torch.matmul(product, matrix.mT)
                torch.matmul(vectors.mT, product)
        return product

    return products


EXPERIMENT = Experiment(run, version=VERSION, timed=True, grows=("batch", "tokens", "context"))
