"""What every implementation of RWKV-4's WKV must satisfy: keys, bonuses and decays of any size."""

from __future__ import annotations

import torch
from torch import Tensor

from rwkv_core.wkv.wkv4 import WKV4, wkv4
from rwkv_core.wkv.wkv4.reference import State
from tests.checks.wkv_suite import Case, Named, Suite, strided

SIZES = [(1, 1, 1), (2, 2, 3), (3, 7, 5), (1, 33, 17), (2, 64, 8), (1, 100, 48), (2, 257, 4)]
KINDS = [  # beside keys up to 60
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
    """All cases; with `small`, few rows, tokens and channels, for Triton's interpreter."""
    sizes = [*SIZES[:-2], (2, 67, 4)] if small else SIZES
    found = [
        Case("normal", *size, state=i % 2 == 1, ragged=size[0] > 1 and i % 3 != 0, strided=i % 3 == 0)
        for i, size in enumerate(sizes)
    ]
    found.append(Case("normal", 2, 45, 64, ragged=True))  # whole blocks of channels, as models have them
    if not small:
        found.append(Case("normal", 1, 8192, 20))
    rows, tokens, channels = (1, 47, 2) if small else (2, 700, 20)
    found.append(Case("k to 60", 2, tokens, channels, ragged=True))
    found += [Case(kind, rows, tokens, channels, state=kind == "jump") for kind in KINDS]
    return found + [Case("normal", 2, 40, 3, state=True, dtype=dtype) for dtype in (torch.bfloat16, torch.float16)]


def make(case: Case, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """w, u [C] and k, v [B, T, C] of a case."""
    generator = torch.Generator().manual_seed(case.tokens)
    channels, shape = case.channels, case.shape
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
        return w, u, strided(k, True), strided(v, False)
    return w, u, k.contiguous(), v


def random_state(batch: int, channels: int, device: str = "cpu") -> State:
    """Sums as an earlier call might have left them."""
    generator = torch.Generator().manual_seed(9)
    a, b, p = (torch.randn(batch, channels, generator=generator).to(device) for _ in range(3))
    return a, b.abs() + 0.1, p


def _make(case: Case, device: str) -> Named:
    return dict(zip("wukv", make(case, device), strict=True))


def _state(case: Case, device: str) -> Named:
    return dict(zip("abp", random_state(case.batch, case.channels, device), strict=True))


def _call(inputs: Named, state: Named, lengths: Tensor | None, impl: str) -> tuple[Tensor, State]:
    start = (state["a"], state["b"], state["p"]) if state else None
    return wkv4(inputs["w"], inputs["u"], inputs["k"], inputs["v"], start, lengths, impl=impl)


def _mean(a: Tensor, b: Tensor, p: Tensor) -> Tensor:
    """What the sums stand for."""
    return a / b


def _trained(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Named:
    return {"w": -torch.exp(w.mean((0, 1))), "u": u.mean((0, 1)), "k": k, "v": v}


SUITE = Suite(WKV4, cases, _make, _state, _call, _mean, _trained)
