"""Who computes a model: the only table of runtimes. Each loads a spec on a device, in a type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rwkv_core import architectures
from rwkv_core.errors import Unsupported
from rwkv_core.spec import LanguageModel, ModelSpec


def _native(spec: ModelSpec, device: str, dtype: Any) -> LanguageModel:
    from rwkv_core.runtimes import native

    return native.load(spec, device, dtype)


def _transformers(spec: ModelSpec, device: str, dtype: Any) -> LanguageModel:
    if spec.architecture["model_type"] == "rwkv":  # whose state transformers keeps in its own way
        from rwkv_core.runtimes import transformers_rwkv

        return transformers_rwkv.load(spec, device, dtype)
    if architectures.of(spec.architecture).runtime == "native":
        raise Unsupported(f"{spec.name}: transformers does not know this version of RWKV; leave `runtime` out")
    from rwkv_core.runtimes import hf  # here, because transformers takes seconds to import

    return hf.load(spec, device, dtype)


def _pip_rwkv(spec: ModelSpec, device: str, dtype: Any) -> LanguageModel:
    from rwkv_core.runtimes import pip_rwkv

    return pip_rwkv.load(spec, device, dtype)


RUNTIMES: dict[str, Callable[[ModelSpec, str, Any], LanguageModel]] = {
    "native": _native,
    "transformers": _transformers,
    "pip_rwkv": _pip_rwkv,
}
