"""Mixers of Long Range Arena beside their papers' equations, written out token by token or as whole tables."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from evals.lra.mixers import KINDS, nystromformer, performer, reformer
from evals.lra.mixers.shape import Shape

TOKENS, WIDTH, HEADS, VALID = 70, 12, 2, 50


def built(name: str, both: bool = True, tokens: int = TOKENS) -> tuple[Any, Tensor, Tensor]:
    """The mixer in float64 with no weight at zero, and two rows of which the second is padded."""
    torch.manual_seed(0)
    mixer = KINDS[name].build(Shape(WIDTH, HEADS, tokens, 1, 3, both)).double()
    for p in mixer.parameters():
        torch.nn.init.normal_(p, std=0.3)
    valid = torch.ones(2, tokens, dtype=torch.bool)
    valid[1, VALID:] = False
    return mixer, torch.randn(2, tokens, WIDTH, dtype=torch.float64), valid


def by_heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def attended(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
    """Softmax attention of q, k, v [B, H, T, D] as a table; keys that are not `seen` [B, T] count for nothing."""
    scores = torch.exp(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]))
    if seen is not None:
        scores = scores * seen[:, None, None]
    return (scores @ v / scores.sum(-1, keepdim=True)).transpose(1, 2).flatten(2)


def agree(mixer: Any, x: Tensor, valid: Tensor, slow: Tensor, atol: float = 1e-9) -> None:
    with torch.no_grad():
        assert slow[valid].std() > 1e-3
        assert torch.allclose(mixer(x, valid)[valid], slow[valid], atol=atol)


def test_aft_is_equation_2() -> None:
    for both in (True, False):
        mixer, x, valid = built("aft", both)
        q, k, v = mixer.inward(x).chunk(3, -1)
        bias = mixer.rows @ mixer.columns.T
        slow = torch.zeros_like(x)
        for row in range(2):
            for t in range(TOKENS):
                keys = [s for s in range(TOKENS) if valid[row, s] and (both or s <= t)]
                weights = torch.exp(k[row, keys] + bias[t, keys][:, None])
                slow[row, t] = torch.sigmoid(q[row, t]) * (weights * v[row, keys]).sum(0) / weights.sum(0)
        agree(mixer, x, valid, mixer.outward(slow))


def test_linformer_is_equation_7() -> None:
    mixer, x, valid = built("linformer")
    q, k, v = map(by_heads, mixer.project.inward(x).chunk(3, -1))
    k, v = (torch.einsum("ts,bhtd->bhsd", mixer.shorten, one * valid[:, None, :, None]) for one in (k, v))
    agree(mixer, x, valid, mixer.project.outward(attended(q, k, v)))


def test_luna_packs_and_unpacks() -> None:
    mixer, x, valid = built("luna")
    asked = mixer.packed.expand(2, -1, -1)
    pack = [by_heads(one) for one in (mixer.pack_q(asked), mixer.pack_k(x), mixer.pack_v(x))]
    packed = attended(*pack, seen=valid)
    unpack = [mixer.unpack_q(x), mixer.unpack_k(packed), mixer.unpack_v(packed)]
    agree(mixer, x, valid, mixer.outward(attended(*map(by_heads, unpack))))


def test_fnet_is_two_fourier_sums() -> None:
    mixer, x, valid = built("fnet")
    over_tokens, over_channels = (
        torch.exp(-2j * math.pi * torch.outer(one, one) / len(one)) / math.sqrt(len(one))
        for one in (torch.arange(TOKENS).double(), torch.arange(WIDTH).double())
    )
    told = (x * valid[..., None]).to(torch.complex128)
    agree(mixer, x, valid, (over_tokens @ told @ over_channels).real)


def test_sru_is_equations_1_to_4() -> None:
    mixer, x, valid = built("sru", both=False)
    (cell,) = mixer.ways
    value, forget, reset, highway = cell.inward(x).chunk(4, -1)
    state, slow = torch.zeros(2, WIDTH, dtype=torch.float64), []
    for t in range(TOKENS):
        f = torch.sigmoid(forget[:, t] + cell.look[0] * state)
        r = torch.sigmoid(reset[:, t] + cell.look[1] * state)
        state = f * state + (1 - f) * value[:, t]
        slow.append(r * state + (1 - r) * highway[:, t])
    agree(mixer, x, valid, torch.stack(slow, 1))


def test_hyena_gates_what_its_filters_sum() -> None:
    mixer, x, valid = built("hyena", both=False)
    mixer, x = mixer.float(), x.float()  # as its places are
    inward = mixer.inward(x)
    kernel, bias = mixer.short.weight[:, 0], mixer.short.bias
    mixed = torch.stack(
        [bias + sum(kernel[:, 2 - s] * inward[:, t - s] for s in range(3) if s <= t) for t in range(TOKENS)], 1
    )
    first, second, v = mixed.chunk(3, -1)
    for gate, drawn, skip in zip((first, second), mixer._filters(TOKENS), mixer.skip, strict=True):
        sums = torch.stack([sum(drawn[s] * v[:, t - s] for s in range(t + 1)) for t in range(TOKENS)], 1)
        v = gate * (sums + skip * v)
    agree(mixer, x, valid, mixer.outward(v), atol=1e-4)


def test_performer_with_many_features_is_softmax_attention() -> None:
    mixer, x, valid = built("performer")
    x = x * 0.4  # the more two features differ, the more of them their mean takes
    mixer.features = performer._orthogonal(30000, WIDTH // HEADS).double()
    q, k, v = map(by_heads, mixer.project.inward(x).chunk(3, -1))
    exact = attended(q, k, v, valid)
    uniform = attended(torch.zeros_like(q), k, v, valid)
    with torch.no_grad():
        found = mixer(x, valid)[valid]
        wanted, flat = (mixer.project.outward(one)[valid] for one in (exact, uniform))
    assert (found - wanted).norm() < 0.1 * (flat - wanted).norm()


def test_reformer_attends_within_its_buckets() -> None:
    tokens = 3 * reformer.CHUNK - 20
    mixer, x, valid = built("reformer", tokens=tokens)
    qk, v = by_heads(mixer.qk(x)), by_heads(mixer.v(x))
    found, totals = [], []
    for turn in mixer.turns:
        bucket = torch.cat([qk @ turn, -(qk @ turn)], -1).argmax(-1).masked_fill(~valid[:, None], 10**6)
        place = bucket.argsort(stable=True, dim=-1).argsort(-1) // reformer.CHUNK
        before = place[..., None] - place[..., None, :]
        near = (before == 0) | (before == 1)
        seen = near & (bucket[..., None] == bucket[..., None, :]) & valid[:, None, None]
        scores = qk @ F.normalize(qk, dim=-1).transpose(-1, -2) / math.sqrt(WIDTH // HEADS)
        scores = scores.masked_fill(torch.eye(tokens, dtype=torch.bool), -1e5).masked_fill(~seen, -math.inf)
        totals.append(scores.logsumexp(-1))
        found.append(torch.softmax(scores, -1) @ v)
    shares = torch.softmax(torch.stack(totals), 0)[..., None]
    slow = (shares * torch.stack(found)).sum(0).transpose(1, 2).flatten(2)
    agree(mixer, x, valid, mixer.outward(slow.nan_to_num()))


def test_nystromformer_goes_through_landmarks() -> None:
    mixer, x, valid = built("nystromformer")
    q, k, v = map(by_heads, mixer.project.inward(x).chunk(3, -1))
    v = v * valid[:, None, :, None]
    each, reach = -(-TOKENS // nystromformer.LANDMARKS), nystromformer.KERNEL // 2
    short_q, short_k = (torch.zeros(2, HEADS, nystromformer.LANDMARKS, WIDTH // HEADS).double() for _ in "qk")
    for row in range(2):
        for segment in range(nystromformer.LANDMARKS):
            inside = [t for t in range(segment * each, min((segment + 1) * each, TOKENS)) if valid[row, t]]
            if inside:
                short_q[row, :, segment] = q[row, :, inside].mean(1)
                short_k[row, :, segment] = k[row, :, inside].mean(1)
    tables = [
        torch.exp(a @ b.transpose(-1, -2) / math.sqrt(WIDTH // HEADS)) * seen
        for a, b, seen in ((q, short_k, 1), (short_q, short_k, 1), (short_q, k, valid[:, None, None]))
    ]
    first, middle, last = (table / table.sum(-1, keepdim=True) for table in tables)
    near = mixer.near.bias[:, None, None] + sum(
        mixer.near.weight[:, 0, s + reach, :, None] * F.pad(v, (0, 0, reach, reach))[:, :, reach + s :][:, :, :TOKENS]
        for s in range(-reach, reach + 1)
    )
    y = first @ nystromformer._inverse(middle) @ last @ v + near
    agree(mixer, x, valid, mixer.project.outward(y.transpose(1, 2).flatten(2)))
