"""Models in llama.cpp, through the optional package llama-cpp-python, with the very weights of a model here."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import logging
import tempfile
import weakref
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.speed import gguf_files, peer
from bench.speed.peer import Peer, Reasons, Step, Text
from rwkv_core.errors import Unsupported

NAME = "llama.cpp"
INSTALL = "not installed; `pip install 'rwkv-bench[llama]'`"
ONE_BY_ONE = "one sequence at a time"
CACHE = {"F32": "F32", "Q8_0": "F16", "Q4_0": "F16"}  # keys and values: as exact as the weights, or llama.cpp's default
BOUNDS = {"gpt_neox": 5e-3}  # in float32: its GELU is the tanh form, read from a table of float16


def installed() -> bool:
    """Whether it can be imported, and what writes its files."""
    return all(importlib.util.find_spec(name) for name in ("llama_cpp", "gguf"))


def contenders(model: Any, task: str, ids: Tensor, text: Text) -> tuple[dict[str, Peer], Reasons]:
    """A contender for each kind of weights, and why there are none; neither where llama.cpp lacks the architecture.

    model: an RWKV or an HFModel. task: prompt or token. ids [B, T]: the prompt, or what was seen and the token.
    """
    architecture = model.spec.architecture["model_type"]
    if architecture not in gguf_files.LAYOUTS:
        return {}, {}
    if reason := INSTALL if not installed() else peer.elsewhere(model) or (ONE_BY_ONE if len(ids) > 1 else ""):
        return {}, {NAME: reason}
    tokens, threads = ids[0].tolist(), torch.get_num_threads()
    peers = {}
    try:
        for kind in gguf_files.KINDS:
            engine = Engine(model, kind, max(len(tokens), len(text.tokens)), threads)
            moved = {} if kind == "F32" else peer.distance(text.logits, engine.each(text.tokens.tolist()))
            bound = BOUNDS.get(architecture) if kind == "F32" else peer.QUANTISED
            call = engine.prompt(tokens) if task == "prompt" else engine.token(tokens)
            peers[f"{NAME} {kind}"] = Peer(call, _described(kind, threads), bound, moved)
    except Unsupported as error:
        return {}, {NAME: str(error)}
    return peers, {}


class Engine:
    """One sequence of a model in llama.cpp on the CPU."""

    def __init__(self, model: Any, kind: str, tokens: int, threads: int) -> None:
        """model: an RWKV or an HFModel. kind: of gguf_files.KINDS. tokens: the most that it will hold. threads: of its
        products. Raises Unsupported where llama.cpp would compute something else, RuntimeError where it refuses.
        """
        self._library = library = _library()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.gguf"
            gguf_files.write(model, path, kind)
            options = library.llama_model_default_params()
            options.n_gpu_layers = 0
            options.load_mode = library.LLAMA_LOAD_MODE_NONE  # memory of its own, as the others have; the file can go
            loaded = library.llama_model_load_from_file(str(path).encode(), options)
        if not loaded:
            raise RuntimeError(f"llama.cpp does not load its file of {model.spec.name}")
        settings = library.llama_context_default_params()
        settings.n_ctx = tokens
        settings.n_threads = settings.n_threads_batch = threads
        settings.type_k = settings.type_v = getattr(library, f"GGML_TYPE_{CACHE[kind]}")
        settings.flash_attn_type = library.LLAMA_FLASH_ATTN_TYPE_DISABLED  # on CPUs it takes longer at long contexts
        self._context = library.llama_init_from_model(loaded, settings)
        weakref.finalize(self, _free, library, loaded, self._context)
        if not self._context:
            raise RuntimeError(f"llama.cpp makes no context of {tokens} tokens for {model.spec.name}")
        self._memory = library.llama_get_memory(self._context)
        self._recurrent = library.llama_model_is_recurrent(loaded)
        self._most = library.llama_n_batch(self._context)
        self._vocabulary = model.spec.vocab_size

    def read(self, tokens: Sequence[int]) -> Tensor:
        """The logits [1, V] after these tokens, which follow those that were read before."""
        for start in range(0, len(tokens), self._most):
            part = tokens[start : start + self._most]
            array = (ctypes.c_int32 * len(part))(*part)  # named, since the batch points to it and does not keep it
            if self._library.llama_decode(self._context, self._library.llama_batch_get_one(array, len(part))):
                raise RuntimeError(f"llama.cpp does not decode {len(part)} tokens")
        values = np.ctypeslib.as_array(self._library.llama_get_logits_ith(self._context, -1), (self._vocabulary,))
        return torch.from_numpy(values.copy())[None]

    def each(self, tokens: Sequence[int]) -> Tensor:
        """The logits [T, V] after each token of a text, read one by one."""
        self._forget()
        return torch.cat([self.read([token]) for token in tokens])

    def prompt(self, tokens: Sequence[int]) -> Step:
        """What reads these tokens from the start."""

        def step() -> Tensor:
            self._forget()
            return self.read(tokens)

        return step

    def token(self, tokens: Sequence[int]) -> Step:
        """What reads the last of these tokens after the others: a cache forgets it again, a recurrent state, which
        cannot, goes on at the same cost.
        """
        *before, last = tokens
        self._forget()
        self.read(before)

        def step() -> Tensor:
            logits = self.read([last])
            if not self._recurrent and not self._library.llama_memory_seq_rm(self._memory, 0, len(before), -1):
                raise RuntimeError("llama.cpp does not forget a token")
            return logits

        return step

    def _forget(self) -> None:
        self._library.llama_memory_clear(self._memory, False)


def _described(kind: str, threads: int) -> str:
    """What a contender is, with how the library was built."""
    built = " ".join(_library().llama_print_system_info().decode().split())
    return (
        f"llama-cpp-python {metadata.version('llama-cpp-python')}: matrices, embedding and head too, but not low-rank "
        f"ones, in {kind}, keys and values in {CACHE[kind]}, no flash attention, threads {threads}; {built.strip('| ')}"
    )


@functools.cache
def _library() -> Any:
    logging.getLogger("llama-cpp-python").setLevel(logging.CRITICAL)  # or it says at length what it loads
    import llama_cpp  # here, because it is optional

    llama_cpp.llama_backend_init()
    return llama_cpp


def _free(library: Any, model: Any, context: Any) -> None:
    if context:
        library.llama_free(context)
    library.llama_model_free(model)
