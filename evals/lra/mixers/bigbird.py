"""BigBird: blocks that see their neighbours, a few random blocks, and the first and last (arXiv:2007.14062, sec. 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evals.lra.mixers.shape import Projections, Shape, in_blocks
from rwkv_core.errors import Unsupported

BLOCK, LEAST = 32, 8  # tokens
BLOCKS = 32  # as long as they are of LEAST tokens or more: in a short text smaller ones, or each would see all
RANDOM = 3  # blocks
GLOBAL = 1  # blocks at each end, seen by all
ATTENDED = 3 + 2 * GLOBAL + RANDOM  # blocks


class Mixer(nn.Module):
    """The blocks at both ends are seen by all, and see all."""

    table: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.block = max(LEAST, min(BLOCK, shape.length // BLOCKS))
        blocks = -(-shape.length // self.block)
        if blocks <= ATTENDED:
            raise Unsupported(
                f"BigBird sees all of {shape.length} tokens, {ATTENDED} blocks of {self.block}: it is attention"
            )
        self.project = Projections(shape)
        self.register_buffer("table", _table(blocks, shape.layer))

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        tokens = x.shape[1]
        missing = len(self.table) * self.block - tokens
        q, k, v = (F.pad(one, (0, 0, 0, missing)) for one in self.project.split(x))
        padded_valid = F.pad(valid, (0, missing))
        sparse, end = self._sparse(q, k, v, padded_valid), GLOBAL * self.block
        first, last = (
            F.scaled_dot_product_attention(one, k, v, attn_mask=padded_valid[:, None, None])
            for one in (q[:, :, :end], q[:, :, -end:])
        )
        y = torch.cat([first, sparse[:, :, end:-end], last], 2)
        return self.project.join(y[:, :, :tokens])

    def _sparse(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor) -> Tensor:
        blocks = [one.unflatten(2, (-1, self.block)) for one in (q, k, v)]
        keys, values = (one[:, :, self.table].flatten(3, 4) for one in blocks[1:])
        mask = valid.unflatten(1, (-1, self.block))[:, self.table].flatten(2)[:, :, None]
        mask = mask | ~mask.any(-1, keepdim=True)
        return in_blocks(blocks[0], keys, values, mask)


def _table(blocks: int, layer: int) -> Tensor:
    """Which blocks each one sees, [blocks, N]: as many for each, none twice."""
    generator = torch.Generator().manual_seed(layer)
    rows = []
    for block in range(blocks):
        neighbours = [neighbour for neighbour in (block - 1, block, block + 1) if 0 <= neighbour < blocks]
        ends = [*range(GLOBAL), *range(blocks - GLOBAL, blocks)]
        row = list(dict.fromkeys([*neighbours, *ends, *torch.randperm(blocks, generator=generator).tolist()]))
        rows.append(row[:ATTENDED])
    return torch.tensor(rows)
