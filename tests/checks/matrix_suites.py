"""What every implementation of the recurrences of RWKV-5, 6 and 7 must satisfy, whose state is a matrix a head."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from rwkv_core.wkv.operator import Operator
from rwkv_core.wkv.wkv6 import WKV6
from rwkv_core.wkv.wkv7 import FASTEST, WKV7
from tests.checks.wkv_suite import Case, Named, Suite, strided

SIZES = [(1, 1, 1, 64), (3, 2, 2, 5), (2, 7, 1, 48), (1, 33, 2, 32), (2, 64, 3, 16), (1, 65, 1, 64), (2, 130, 1, 5)]
SMALL = [(1, 1, 1, 8), (3, 2, 2, 5), (2, 7, 1, 3), (1, 17, 2, 4)]  # for Triton's interpreter, which takes 2 ms a token
HALVES = (torch.bfloat16, torch.float16)


def _cases(kinds: list[str], small: bool = False) -> list[Case]:
    found = [
        Case("normal", b, t, n, state=i % 2 == 1, ragged=b > 1 and i % 3 != 0, strided=i % 3 == 0, heads=h)
        for i, (b, t, h, n) in enumerate(SMALL if small else SIZES)
    ]
    if not small:
        found.append(Case("normal", 1, 8192, 4, backward=False, heads=1))
    shape, heads = ((1, 10, 5), 1) if small else ((2, 70, 20), 2)
    found += [Case(k, *shape, state=i % 2 == 0, heads=heads) for i, k in enumerate(kinds)]
    return found + [Case("normal", *shape, state=True, dtype=dtype, heads=heads) for dtype in HALVES]


def _normal(case: Case, count: int) -> tuple[torch.Generator, list[Tensor]]:
    generator = torch.Generator().manual_seed(case.tokens)
    return generator, [torch.randn(case.shape, generator=generator) for _ in range(count)]


def _placed(case: Case, device: str, **inputs: Tensor) -> Named:
    """On the device; what is no exponent in the case's type, and of its strides."""
    placed = {}
    for i, (name, x) in enumerate(inputs.items()):
        x = x.to(device, torch.float32 if name in ("u", "w") else case.dtype)
        placed[name] = strided(x, i % 2 == 0) if case.strided and x.ndim == 4 else x
    return placed


def _wkv6(case: Case, device: str) -> Named:
    generator, (r, k, v) = _normal(case, 3)
    w = -torch.exp(torch.empty(case.shape).uniform_(-8, 1, generator=generator))
    u = torch.randn(case.shape[2:], generator=generator)
    match case.kind:
        case "normal":
            pass
        case "constant decay":  # RWKV-5's: one of each channel
            w = w[0, 0]
        case "slow decay":
            w = w * 1e-6
        case "fast decay":
            w = torch.full_like(w, -30.0)
        case "fast and slow":  # beside each other in time and channels
            w = torch.where(torch.rand(case.shape, generator=generator) < 0.3, -30.0, w * 1e-3)
        case "at once":  # everything is forgotten, as no sum of log-decays beside others in float32 would have it
            w = torch.where(torch.rand(case.shape, generator=generator) < 0.1, -1e6, w * 1e-2)
        case "large keys":
            k, u = 100 * k, 30 * u
        case _:
            raise ValueError(case.kind)
    return _placed(case, device, u=u, r=r, w=w, k=k, v=v)


def _wkv7(case: Case, device: str) -> Named:
    generator, (r, k, v, kk) = _normal(case, 4)
    decay, rate = (torch.sigmoid(3 * torch.randn(case.shape, generator=generator)) for _ in range(2))
    match case.kind:
        case "normal":
            pass
        case "slow decay":
            decay = decay * 1e-6
        case "fastest decay":
            decay = torch.ones_like(decay)
        case "fastest and none":
            decay = (decay > 0.5).float()
        case "rate 0":
            rate = torch.zeros_like(rate)
        case "rate 1":
            rate = torch.ones_like(rate)
        case "same keys":  # what each token writes is removed by the next
            rate, kk = torch.ones_like(rate), kk[:, :1].expand(case.shape)
        case "same keys, half removed":
            rate, kk, decay = torch.full_like(rate, 0.5), kk[:, :1].expand(case.shape), decay * 1e-6
        case "large keys":
            k = 100 * k
        case _:
            raise ValueError(case.kind)
    kk = F.normalize(kk, dim=-1)
    return _placed(case, device, r=r, w=FASTEST * decay, k=k, v=v, a=-kk, b=kk * rate)


def _state(case: Case, device: str) -> Named:
    shape = (case.batch, case.heads, case.channels, case.channels)
    return {"state": torch.randn(shape, generator=torch.Generator().manual_seed(9)).to(device)}


def _call(
    operator: Operator, inputs: Named, state: Named, lengths: Tensor | None, impl: str
) -> tuple[Tensor, tuple[Tensor]]:
    whole = {**inputs, "w": inputs["w"].expand_as(inputs["v"])}
    y, after = operator.call(*whole.values(), state.get("state"), lengths, impl=impl)
    return y, (after,)


def _itself(state: Tensor) -> Tensor:
    return state


def _trained6(u: Tensor, *projected: Tensor) -> Named:
    r, w, k, v = (x[:, :, None] for x in projected)
    return {"u": u.mean((0, 1))[None], "r": r, "w": -torch.exp(w), "k": k, "v": v}


def _trained7(*projected: Tensor) -> Named:
    r, w, k, v, kk, rate = (x[:, :, None] for x in projected)
    kk = F.normalize(kk, dim=-1)
    return {"r": r, "w": FASTEST * torch.sigmoid(w), "k": k, "v": v, "a": -kk, "b": kk * torch.sigmoid(rate)}


KINDS6 = ["constant decay", "slow decay", "fast decay", "fast and slow", "at once", "large keys"]
KINDS7 = [
    "slow decay",
    "fastest decay",
    "fastest and none",
    "rate 0",
    "rate 1",
    "same keys",
    "same keys, half removed",
    "large keys",
]


def _suite(operator: Operator, kinds: list[str], make: Callable[..., Named], trained: Callable[..., Named]) -> Suite:
    cases, call = functools.partial(_cases, kinds), functools.partial(_call, operator)
    return Suite(operator, cases, make, _state, call, _itself, trained)


SUITES = [_suite(WKV6, KINDS6, _wkv6, _trained6), _suite(WKV7, KINDS7, _wkv7, _trained7)]
