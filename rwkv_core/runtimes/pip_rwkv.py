"""RWKV in the author's inference package, pip `rwkv`, with the weights that the native runtime reads."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rwkv_core import machine, text
from rwkv_core.errors import BadInput
from rwkv_core.models import check_room
from rwkv_core.one_size import OneSizeState
from rwkv_core.runtimes import native
from rwkv_core.rwkv import checkpoint, v7
from rwkv_core.rwkv.model import RWKV
from rwkv_core.spec import ModelSpec

STRATEGIES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}

State = list[list[Tensor] | None]  # of each row what the package carries, and changes in place; None before any token


def installed() -> bool:
    return importlib.util.find_spec("rwkv") is not None


def load(spec: ModelSpec, device: str, dtype: torch.dtype) -> PipRWKV:
    """The model in pip `rwkv`, on the device. Raises as the native runtime does, and BadInput where the package is not
    installed, which says nothing about the model.
    """
    if not installed():
        raise BadInput(f"{spec.name}: the package of `runtime: pip_rwkv` is not installed; `pip install rwkv`")
    needed = 4 * spec.parameters  # float32, in which the package reads them from a file
    check_room(spec, 2 * needed, machine.free_memory(), "for two copies in float32")
    check_room(spec, needed, shutil.disk_usage(tempfile.gettempdir()).free, "on the disk, for a file in float32")
    model = native.load(spec, "cpu", torch.float32)
    return PipRWKV(model, converted(model, device, dtype))


def converted(model: RWKV, device: str = "", dtype: torch.dtype | None = None) -> Any:
    """The package's model with the weights of `model`, on its device and in its type unless others are given."""
    weight = model.emb.weight
    strategy = f"{device or weight.device.type} {STRATEGIES[dtype or weight.dtype]}"
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        package = _package(model.version is v7)
        path = Path(folder) / "model"
        checkpoint.save_pth(model.tensors(), path.with_suffix(".pth"))
        return package.RWKV(model=str(path), strategy=strategy)


@functools.cache
def _package(v7_on: bool) -> ModuleType:
    """The package's module, which serves either RWKV-7 or all versions before it, as the environment says while it is
    imported; so that it is imported once for each.
    """
    spec = importlib.util.find_spec("rwkv.model")
    assert spec and spec.origin
    name = f"rwkv.model_{'7' if v7_on else '4_to_6'}"
    spec = importlib.util.spec_from_file_location(name, spec.origin)
    assert spec and spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # where what it compiles looks for it
    with _settings_as_before():
        os.environ["RWKV_V7_ON"] = str(int(v7_on))
        spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _settings_as_before() -> Iterator[None]:
    """The package turns TF32 on for the whole process when it is imported; what is timed beside it is not to be. Its
    switch in the environment stands again as the user has set it.
    """
    backends, environment = torch.backends, os.environ.get("RWKV_V7_ON")
    before = backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, backends.cudnn.benchmark
    try:
        yield
    finally:
        backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, backends.cudnn.benchmark = before
        os.environ.pop("RWKV_V7_ON")
        if environment is not None:
            os.environ["RWKV_V7_ON"] = environment


class PipRWKV(OneSizeState):
    """A LanguageModel over the package, which has no batches: rows are read one after the other. It computes logits at
    once, so that `hidden` holds them and `logits` passes them on.
    """

    ragged = True
    read = None
    attention = f"pip rwkv, RWKV_CUDA_ON={os.environ.get('RWKV_CUDA_ON', '0')}"

    def __init__(self, model: RWKV, author: Any) -> None:
        self.spec, self.source = model.spec, model.source
        self.revision, self.layout = model.revision, model.layout
        self.parameter_count = model.parameter_count
        self._fingerprint = model.fingerprint()
        self._author = author

    @property
    def parameter_bytes(self) -> int:
        """Bytes of all weights as the package holds them."""
        weights = (value for value in self._weights().values() if isinstance(value, Tensor))
        return sum({weight.data_ptr(): weight.nbytes for weight in weights}.values())

    @property
    def itemsize(self) -> int:
        """Bytes of a number of the model's type."""
        return int(self._weights()["head.weight"].itemsize)

    def _weights(self) -> dict[str, Any]:
        weights: dict[str, Any] = self._author.z if hasattr(self._author, "z") else self._author.w  # z: of RWKV-7
        return weights

    def fingerprint(self) -> str:
        """Of the weights as the native runtime reads them in float32."""
        return self._fingerprint

    def hidden(
        self,
        tokens: Tensor,
        state: State | None = None,
        lengths: Tensor | None = None,
        keep: bool = True,
        last: bool = False,
    ) -> tuple[Tensor, State]:
        """tokens [B, T] -> logits [B, T, V], those of the last position alone with `last`; see LanguageModel."""
        before: State = state or [None] * len(tokens)
        ends = [tokens.shape[1]] * len(tokens) if lengths is None else lengths.tolist()
        parts: list[Tensor] = []
        after: State = []
        for row, carried, end in zip(tokens.tolist(), before, ends, strict=True):
            if end:
                logits, carried = self._author.forward(row[:end], carried, full_output=not last)
                logits = logits.view(-1, logits.shape[-1])
                parts.append(logits if last else F.pad(logits, (0, 0, 0, len(row) - end)))
            else:
                parts.append(torch.zeros(1 if last else len(row), self.spec.vocab_size, device=tokens.device))
            after.append(carried)
        return torch.stack(parts), after

    def take(self, state: State, rows: Tensor) -> State:
        """Copies of the states of the given rows [N], repeated where `rows` repeats."""
        return [None if (row := state[i]) is None else [part.clone() for part in row] for i in rows.tolist()]

    def logits(self, hidden: Tensor, words: slice | None = None) -> Tensor:
        """The logits that `hidden` has computed."""
        return hidden if words is None else hidden[..., words]

    def state_bytes(self, state: State) -> int:
        """Exact bytes of the states' tensors."""
        return sum(part.nbytes for row in state for part in row or ())

    @functools.cached_property
    def codec(self) -> text.Codec:
        """The tokenizer that lies with the weights. Raises BadInput where there is none."""
        return text.find(self.source, self.spec)
