"""RWKV-7's recurrence in plain torch, chunk by chunk (the WY form: arXiv:2503.14456, app.; arXiv:2406.06484, sec. 3).

What each token of a chunk removes, u_t = a_t S_{t-1}, depends on what the earlier ones removed: a triangular system,
which is solved by substitution. (The strict triangle's powers grow where its inverse does not, so no series of them.)
Decays are products from the chunk's first token on, and their inverses. RWKV-7's are never faster than e^-0.61 a token,
so that an inverse stays below e^10; sequences with faster ones go token by token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rwkv_core.wkv import chunks
from rwkv_core.wkv.wkv7 import reference

FASTEST_IN_CHUNKS = -1.0  # log-decay of a token: faster ones cost precision, and overflow at last


def wkv7(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    state: Tensor,
    lengths: Tensor | None,
    out: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """r, w, k, v, a, b [B, T, H, N] -> y [B, T, H, N] and the state after each row's length."""
    if r.shape[1] > 1 and w.detach().amin() < FASTEST_IN_CHUNKS:
        y, state = reference.loop(r, w, k, v, a, b, state, lengths)
        return (y if out is None else out.copy_(y)), state
    sequences = {"r": r, "w": w, "k": k, "v": v, "a": a, "b": b}
    return chunks.by_pieces(reference.step, _scan, sequences, "wkb", state, lengths, out)


def _scan(r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Every chunk's triangles at once, then the state from chunk to chunk."""
    tokens, size = v.shape[-2:]
    passed = w.cumsum(-2)  # of the chunk's log-decays, the token's among them
    decay, growth = torch.exp(passed), torch.exp(-passed)
    a, r = a * F.pad(decay[..., :-1, :], (0, 0, 1, 0), value=1.0), r * decay
    b, k = b * growth, k * growth
    products = torch.cat([a, r], -2) @ torch.cat([b, k], -2).mT
    products = products.unflatten(-2, (2, tokens)).unflatten(-1, (2, tokens))
    a_b, a_k = products[..., 0, :, 0, :].tril(-1), products[..., 0, :, 1, :].tril(-1)
    r_b, r_k = products[..., 1, :, 0, :].tril(), products[..., 1, :, 1, :].tril()

    # (1 - a_b) removed = a S + a_k v: both columns of the right side, since S is not known yet
    solved = torch.linalg.solve_triangular(-a_b, torch.cat([a, a_k @ v], -1), upper=False, unitriangular=True)
    of_state, of_values = solved.split(size, -1)
    last = decay[..., -1:, :]
    b, added, last = (b * last).mT, (k * last).mT @ v, last.mT
    entering, removed = [], []
    for chunk in zip(*(x.unbind(2) for x in (of_state, of_values, b, added, last)), strict=True):
        of_state, of_values, b, added, last = chunk
        entering.append(state)
        removed.append(of_values + of_state @ state)
        state = torch.addcmul(added, last, state) + b @ removed[-1]
    return r @ torch.stack(entering, 2) + r_b @ torch.stack(removed, 2) + r_k @ v, state
