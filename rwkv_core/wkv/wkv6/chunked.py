"""RWKV-6's recurrence in plain torch, chunk by chunk, for decays of any speed.

Within a chunk, the token t weighs an earlier one i by the product of the decays between them. Neighbouring blocks of
1, 2, 4, .. tokens are joined: queries of the right block decay from its first token, keys of the left one to its last,
and the product of the two is the weight. Only decays are multiplied, none is divided by, and no sum of log-decays is
taken: nothing can overflow or cancel, however fast and slow decays are mixed.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from rwkv_core.wkv import chunks
from rwkv_core.wkv.wkv6 import reference


def wkv6(
    u: Tensor, r: Tensor, w: Tensor, k: Tensor, v: Tensor, state: Tensor, lengths: Tensor | None, out: Tensor | None
) -> tuple[Tensor, Tensor]:
    """r, w, k, v [B, T, H, N] -> y [B, T, H, N] and the state after each row's length."""
    step, scan = functools.partial(reference.step, u), functools.partial(_scan, u)
    return chunks.by_pieces(step, scan, {"r": r, "w": w, "k": k, "v": v}, "wk", state, lengths, out)


def _scan(u: Tensor, r: Tensor, w: Tensor, k: Tensor, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Every chunk's weights at once, then the state from chunk to chunk."""
    weights, r, k, decay = _join(r, k, torch.exp(w), (r * k * u[:, None, None]).sum(-1))
    entering = []
    for decayed, added in zip(decay.unbind(2), (k.mT @ v).unbind(2), strict=True):
        entering.append(state)
        state = torch.addcmul(added, decayed[..., None], state)
    return weights @ v + r @ torch.stack(entering, 2), state


def _join(r: Tensor, k: Tensor, decay: Tensor, bonus: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """r, k, decay [..., C, N] and what a token gives itself [..., C] -> weights [..., C, C] of each token for each
    query, zero for later ones; queries decayed from the chunk's first token, keys decayed to its last; its decay
    [..., N].
    """
    tokens, size = r.shape[-2], 1
    weights, r, k = bonus[..., None, None], r[..., None, :], k[..., None, :]  # [..., blocks, size of a block, ..]
    while size < tokens:
        left, right = _neighbours(weights, -3)
        r_left, r_right = _neighbours(r, -3)
        k_left, k_right = _neighbours(k, -3)
        decay_left, decay_right = _neighbours(decay, -2)
        across = (r_right * k_left).sum(-1, keepdim=True) if size == 1 else r_right @ k_left.mT
        above = torch.cat([left, torch.zeros_like(across)], -1)
        weights = torch.cat([above, torch.cat([across, right], -1)], -2)
        r = torch.cat([r_left, r_right * decay_left[..., None, :]], -2)
        k = torch.cat([k_left * decay_right[..., None, :], k_right], -2)
        decay = decay_left * decay_right
        size *= 2
    return weights[..., 0, :, :], r[..., 0, :, :], k[..., 0, :, :], decay[..., 0, :]


def _neighbours(x: Tensor, axis: int) -> tuple[Tensor, ...]:
    """The left and the right one of every two blocks."""
    return x.unflatten(axis, (-1, 2)).unbind(axis)
