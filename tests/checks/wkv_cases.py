"""What every implementation of WKV must satisfy, as plain functions: also for machines without pytest."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rwkv_core.wkv.wkv4 import wkv4
from rwkv_core.wkv.wkv4.reference import State

NORMAL_Y = 1e-6  # of the largest |y|
NORMAL_GRADIENT = 3e-6  # of the gradient's largest entry
EXTREME = 1e-4  # both
HALF = {torch.bfloat16: 2**-8, torch.float16: 2**-11}  # a result's own rounding, beside the bounds above
SMALLEST = 1e-2  # errors of results smaller than this are of this: a true gradient may be 0


@dataclass(frozen=True)
class Case:
    """One input: kind as in `make`, a state to start from, rows of different length, k and v with strides."""

    kind: str
    batch: int
    tokens: int
    channels: int
    state: bool = False
    ragged: bool = False
    strided: bool = False
    dtype: torch.dtype = torch.float32
    backward: bool = True

    def __str__(self) -> str:
        flags = [name for name in ("state", "ragged", "strided") if getattr(self, name)]
        return "-".join([self.kind, f"{self.batch}x{self.tokens}x{self.channels}", *flags, str(self.dtype)[6:]])


SIZES = [(1, 1, 1), (2, 2, 3), (3, 7, 5), (1, 33, 17), (2, 64, 8), (1, 100, 48), (2, 257, 4)]
KINDS = [
    "k to 60",
    "k to 300",
    "jump",
    "slow decay",
    "fast decay",
    "all decays",
    "calm and wild",
    "large bonus",
    "far below",
]


def cases(small: bool = False) -> list[Case]:
    """All cases; with `small`, few tokens and channels, for Triton's interpreter."""
    found = [
        Case("normal", *size, state=i % 2 == 1, ragged=size[0] > 1 and i % 3 != 0, strided=i % 3 == 0)
        for i, size in enumerate(SIZES)
    ]
    found.append(Case("normal", 2, 45, 64, ragged=True))  # whole blocks of channels, as models have them
    found.append(Case("normal", 1, 8192, 1 if small else 20, backward=not small))
    tokens, channels = (150, 2) if small else (700, 20)
    found += [Case(k, 2, tokens, channels, state=k == "jump", ragged=k == "k to 60") for k in KINDS]
    return found + [Case("normal", 2, 40, 3, state=True, dtype=dtype) for dtype in HALF]


def make(case: Case, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """w, u [C] and k, v [B, T, C] of a case."""
    generator = torch.Generator().manual_seed(case.tokens)
    channels, shape = case.channels, (case.batch, case.tokens, case.channels)
    w = -torch.exp(torch.empty(channels).uniform_(-8, 3, generator=generator))
    u = torch.randn(channels, generator=generator)
    k, v = (torch.randn(shape, generator=generator) for _ in range(2))
    time = torch.arange(case.tokens)[:, None]
    match case.kind:
        case "normal":
            pass
        case "k to 60":
            k = (k * 20).clamp(-60, 60)
        case "k to 300":
            k = (k * 100).clamp(-300, 300)
        case "jump":
            k = torch.where(time < case.tokens // 2, 60.0, -60.0).expand(shape)
        case "slow decay":
            w = torch.full_like(w, -3e-4)
        case "fast decay":
            w = torch.full_like(w, -20.0)
        case "all decays":
            w = torch.linspace(-3e-4, -20, channels)
        case "calm and wild":  # across the bound of what may be summed without a running maximum, and back
            k = k * torch.where(time // 45 % 2 == 0, 1.0, 60.0)
        case "large bonus":
            u = u * 30
        case "far below":  # sums that stay small, of keys whose exponentials float32 does not have
            k = -100 * k.abs()
        case _:
            raise ValueError(case.kind)
    w, u, k, v = w.to(device), u.to(device), k.to(device, case.dtype), v.to(device, case.dtype)
    if case.strided:
        return w, u, k.transpose(0, 1).contiguous().transpose(0, 1), torch.stack([v, v], -1)[..., 0]
    return w, u, k.contiguous(), v


def random_state(batch: int, channels: int, device: str = "cpu") -> State:
    """Sums as an earlier call might have left them."""
    generator = torch.Generator().manual_seed(9)
    a, b, p = (torch.randn(batch, channels, generator=generator).to(device) for _ in range(3))
    return a, b.abs() + 0.1, p


def check(impl: str, case: Case, device: str = "cpu") -> dict[str, float]:
    """Errors of y, the final state and every gradient against the oracle in float64, of the largest entry.

    Raises AssertionError beyond the bounds. Uninitialised memory is NaN meanwhile, so that what a
    kernel forgets to write is seen.
    """
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        found = _results(impl, case, device)
    finally:
        torch.use_deterministic_algorithms(deterministic)
    errors = {}
    for name, exact in _expected(case, device).items():
        assert found[name].isfinite().all(), f"{impl} {case}: {name} is not finite"
        size = max(float(exact.abs().max()), SMALLEST)
        if name == "w" and case.kind != "normal":  # it adds up terms of the size of v's gradient, which may cancel
            size = max(size, float(_expected(case, device)["v"].abs().max()))
        errors[name] = float((found[name].double() - exact).abs().max()) / size
        bound = EXTREME if case.kind != "normal" else NORMAL_Y if name == "y" else NORMAL_GRADIENT
        bound += HALF.get(case.dtype, 0.0) * (2 if impl == "triton" and device == "cpu" else 1)  # it truncates there
        assert errors[name] <= bound, f"{impl} {case}: {name} is off by {errors[name]:.1e}, the bound is {bound:.1e}"
    return errors


@functools.cache
def _expected(case: Case, device: str) -> dict[str, Tensor]:
    return _results("reference", case, device, exact=True)


def _results(impl: str, case: Case, device: str, exact: bool = False) -> dict[str, Tensor]:
    """y, the mean that the final state stands for, and the gradients of a loss on both."""
    inputs = make(case, device)
    weight = torch.randn(inputs[2].shape, generator=torch.Generator().manual_seed(1)).to(device, case.dtype)
    state = random_state(case.batch, case.channels, device) if case.state else ()
    leaves = [(x.double() if exact else x).detach().requires_grad_() for x in (*inputs, *state)]
    w, u, k, v, *start = leaves
    lengths = torch.tensor([case.tokens, case.tokens // 3, 0], device=device)[: case.batch] if case.ragged else None

    y, (a, b, _) = wkv4(w, u, k, v, (start[0], start[1], start[2]) if start else None, lengths, impl=impl)
    filled = torch.full((case.batch,), case.tokens, device=device) if lengths is None else lengths
    y = y * (torch.arange(case.tokens, device=device) < filled[:, None])[..., None]
    some = (filled > 0) | case.state
    mean = a[some] / b[some]
    results = {"y": y.detach(), "mean": mean.detach()}
    if not case.backward:
        return results
    gradients = torch.autograd.grad((y * weight).double().sum() + mean.double().sum(), leaves)
    return results | dict(zip(["w", "u", "k", "v", "a", "b", "p"], gradients, strict=False))


CASES: dict[str, Callable[..., list[Case]]] = {"wkv4": cases}  # by operator
