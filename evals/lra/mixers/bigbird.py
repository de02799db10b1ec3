"""BigBird: blocks that see their neighbours, a few random blocks, and the first and last (arXiv:2007.14062, sec. 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evals.lra.mixers.shape import Projections, Shape, in_blocks

BLOCK = 32  # tokens
RANDOM = 3  # blocks
GLOBAL = 1  # blocks at each end, seen by all


class Mixer(nn.Module):
    """The blocks at both ends are seen by all, and see all."""

    table: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.project = Projections(shape)
        self.register_buffer("table", _table(-(-shape.length // BLOCK), shape.layer))

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        tokens = x.shape[1]
        missing = len(self.table) * BLOCK - tokens
        q, k, v = (F.pad(one, (0, 0, 0, missing)) for one in self.project.split(x))
        seen = F.pad(valid, (0, missing))
        sparse, end = self._sparse(q, k, v, seen), GLOBAL * BLOCK
        first, last = (
            F.scaled_dot_product_attention(one, k, v, attn_mask=seen[:, None, None])
            for one in (q[:, :, :end], q[:, :, -end:])
        )
        y = torch.cat([first, sparse[:, :, end:-end], last], 2)
        return self.project.join(y[:, :, :tokens])

    def _sparse(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
        blocks = [one.unflatten(2, (-1, BLOCK)) for one in (q, k, v)]
        keys, values = (one[:, :, self.table].flatten(3, 4) for one in blocks[1:])
        mask = seen.unflatten(1, (-1, BLOCK))[:, self.table].flatten(2)[:, :, None]
        mask = mask | ~mask.any(-1, keepdim=True)
        return in_blocks(blocks[0], keys, values, mask)


def _table(blocks: int, layer: int) -> Tensor:
    """Which blocks each one sees, [blocks, N]: as many for each, none twice."""
    generator = torch.Generator().manual_seed(layer)
    wanted = min(blocks, 3 + 2 * GLOBAL + RANDOM)
    rows = []
    for block in range(blocks):
        near = [other for other in (block - 1, block, block + 1) if 0 <= other < blocks]
        ends = [*range(min(GLOBAL, blocks)), *range(max(0, blocks - GLOBAL), blocks)]
        chosen = list(dict.fromkeys([*near, *ends, *torch.randperm(blocks, generator=generator).tolist()]))
        rows.append(chosen[:wanted])
    return torch.tensor(rows)
