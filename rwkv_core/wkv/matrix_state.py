"""What the operators share whose state is a matrix a head: their tensors checked, and cast once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rwkv_core.wkv.operator import Operator

HEAD_SIZE = 64  # of every published model


def head_size(channels: int) -> int:
    """Channels of a head where nothing but the width is known."""
    return HEAD_SIZE if channels % HEAD_SIZE == 0 else channels


def initial_state(batch: int, heads: int, size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Nothing seen: zeros [batch, heads, key, value]."""
    return torch.zeros(batch, heads, size, size, device=device, dtype=dtype)


def zero_beyond(lengths: Tensor, x: Tensor) -> Tensor:
    """x [B, T, H, N] with zeros from each row's length on: a log-decay of 0 and a key of 0 leave a state as it is."""
    return torch.where((torch.arange(x.shape[1], device=x.device) < lengths[:, None])[..., None, None], x, 0)


def call(
    operator: Operator,
    parameters: Mapping[str, Tensor],
    sequences: Mapping[str, Tensor],
    state: Tensor | None,
    lengths: Tensor | None,
    out: Tensor | None,
    impl: str,
) -> tuple[Tensor, Tensor]:
    """y [B, T, H, N] and the state after it by one of the operator's implementations.

    parameters: [H, N] each. sequences: [B, T, H, N] each, `v` among them, whose type y has. The rest is as the
    operators describe it. Raises ValueError where the shapes do not fit, BadInput for an impl that is unknown or cannot
    be used.

    `w`, a log-decay, is given to every implementation in float32 or float64: what stands in an exponent is not rounded.
    """
    name, v = operator.name, sequences["v"]
    if v.ndim != 4 or v.numel() == 0 or any(x.shape != v.shape for x in sequences.values()):
        shapes = ", ".join(f"{key} {list(x.shape)}" for key, x in sequences.items())
        raise ValueError(f"{name} wants sequences of one shape [B, T, H, N], none of them 0, got {shapes}")
    batch, tokens, heads, size = v.shape
    if any(x.shape != (heads, size) for x in parameters.values()):
        shapes = ", ".join(f"{key} {list(x.shape)}" for key, x in parameters.items())
        raise ValueError(f"{name} wants [{heads}, {size}], got {shapes}")
    exact = torch.float64 if v.dtype is torch.float64 else torch.float32
    if state is None:
        state = initial_state(batch, heads, size, v.device, exact)
    elif state.shape != (batch, heads, size, size):
        raise ValueError(f"{name} wants a state [{batch}, {heads}, {size}, {size}], got {list(state.shape)}")
    if lengths is not None:
        if lengths.shape != (batch,):
            raise ValueError(f"{name} wants lengths [{batch}], got {list(lengths.shape)}")
        lengths = lengths.clamp(0, tokens)
    tensors = [*parameters.values(), *sequences.values(), state]
    beside = tensors if lengths is None else [*tensors, lengths]
    if any(x.device != v.device for x in beside):
        raise ValueError(f"{name} wants all tensors on one device, got {sorted({str(x.device) for x in beside})}")
    gradients = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    if out is not None and (
        gradients or out.shape != v.shape or (out.dtype, out.device) != (v.dtype, v.device) or not out.is_contiguous()
    ):
        raise ValueError(
            f"{name}'s `out` must be contiguous, like v ({v.dtype}, {list(v.shape)}, {v.device}), without gradients; "
            f"not {out.dtype}, {list(out.shape)}, {out.device}{', with gradients' if gradients else ''}"
        )
    implementation = operator.implementations[operator.choose(impl, v.device, exact, gradients)]
    half = implementation.half and all(x.dtype == v.dtype for key, x in sequences.items() if key != "w")
    inner = v.dtype if half else exact
    direct = out if v.dtype == inner else None
    y, state = implementation.run(
        *(x.to(exact) for x in parameters.values()),
        *(x.to(exact if key == "w" else inner) for key, x in sequences.items()),
        state.to(exact),
        lengths,
        direct,
    )
    if out is not None and direct is None:
        return out.copy_(y), state
    return y.to(v.dtype), state
