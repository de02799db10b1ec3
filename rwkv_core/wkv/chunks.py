"""What the chunked forms in torch share: long inputs piece by piece, each piece cut into chunks of a head."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from rwkv_core.wkv.matrix_state import zero_beyond

CHUNK = 16  # tokens; 32 take as long at 64 channels a head, and longer at fewer
PIECES = {"cpu": 1 << 17}  # elements of a sequence computed at once: what is held meanwhile should stay in caches
PIECE = 1 << 25  # of other devices

Scan = Callable[..., tuple[Tensor, Tensor]]


def by_pieces(
    step: Scan,
    scan: Scan,
    sequences: Mapping[str, Tensor],
    written: str,
    state: Tensor,
    lengths: Tensor | None,
    out: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Sequences [B, T, H, N] -> y [B, T, H, N] and the state after each row's length.

    step: one token, [B, H, N] each, and a state -> y [B, H, N] and the next state.
    scan: a piece, [B, H, chunks, tokens of a chunk, N] each, and a state -> y of that shape and the state after it.
    written: names of the sequences without which a token leaves the state as it is; a log-decay is one of them.
    """
    batch, tokens, heads, size = next(iter(sequences.values())).shape

    def before_the_end(piece: tuple[Tensor, ...], start: int) -> tuple[Tensor, ...]:
        if lengths is None:
            return piece
        named = zip(sequences, piece, strict=True)
        return tuple(zero_beyond(lengths - start, x) if name in written else x for name, x in named)

    if tokens == 1:
        y, state = step(*(x[:, 0] for x in before_the_end(tuple(sequences.values()), 0)), state)
        y = y[:, None]
        return (y if out is None else out.copy_(y)), state
    length = max(CHUNK, PIECES.get(state.device.type, PIECE) // (batch * heads * size) // CHUNK * CHUNK)
    parts = []
    # whose gradients cost less than those of x[:, start:end]
    pieces = zip(*(x.split(length, 1) for x in sequences.values()), strict=True)
    for start, piece in zip(range(0, tokens, length), pieces, strict=True):
        y, state = scan(*map(_cut, before_the_end(piece, start)), state)
        parts.append(y.flatten(2, 3).transpose(1, 2)[:, : piece[0].shape[1]])
    return torch.cat(parts, 1, out=out), state


def _cut(x: Tensor) -> Tensor:
    """[B, T, H, N] -> [B, H, chunks, tokens, N], contiguous, zeros appended; a power of two tokens, at most CHUNK."""
    tokens = x.shape[1]
    size = min(CHUNK, 1 << (tokens - 1).bit_length())
    x = x.transpose(1, 2)
    if tokens % size:
        x = F.pad(x, (0, 0, 0, -tokens % size))
    return x.unflatten(2, (-1, size)).contiguous()
