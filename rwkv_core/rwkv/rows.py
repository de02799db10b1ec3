"""How the tokens of one pass lie in memory, and what follows for the two operations that look at other tokens than
their own: token shift and the recurrence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rwkv_core.rwkv.mixing import mix
from rwkv_core.spec import Tree

Scan = Callable[..., tuple[Tensor, Any]]  # (*sequences, state, lengths) -> y and the state after it


class Rows:
    """Rows of one length, [B, T, ...], or a single token of each, [B, ...]. With lengths [B], a row's tokens beyond its
    length are padding.
    """

    def __init__(self, lengths: Tensor | None = None) -> None:
        self.lengths = lengths

    def mix(
        self,
        x: Tensor,
        last: Tensor,
        shares: Sequence[Tensor],
        *,
        current: bool = False,
        parts: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """x mixed with the token before, as `mixing.mix` does it."""
        return mix(x, last, shares, current=current, parts=parts)

    def at_end(self, x: Tensor, last: Tensor) -> Tensor:
        """The vector [B, C] of x at each row's last true token; `last` where a row has none."""
        if x.dim() == 2:
            return x
        if self.lengths is None:
            return x[:, -1]
        ends = x[torch.arange(len(x), device=x.device), (self.lengths - 1).clamp(min=0)]
        return torch.where((self.lengths > 0)[:, None], ends, last)

    def scan(self, call: Scan, sequences: Sequence[Tensor], state: Any) -> tuple[Tensor, Any]:
        """y like the sequences [B, T, ...] and the state after each row."""
        return call(*sequences, state, self.lengths)


class Trees(Rows):
    """Trees one after another in a single row without padding, [1, N, ...]: of each its stem, then its branches, all of
    which go on from the stem's end. What is carried in is the stems', [trees, ...]; what comes out is of no use.
    """

    def __init__(self, trees: Sequence[Tree], device: torch.device) -> None:
        super().__init__()
        sizes = np.array([size for tree in trees for size in (tree.stem, *tree.branches)])
        begins = np.cumsum(sizes) - sizes
        owners = np.repeat(np.arange(len(trees)), [1 + len(tree.branches) for tree in trees])
        first = np.diff(owners, prepend=-1) > 0
        stems, branches = np.flatnonzero(first), np.flatnonzero(~first)
        levels = [rows for rows in (stems, branches) if len(rows)]
        grids = [_grid(begins[rows], sizes[rows]) for rows in levels]
        flat = np.concatenate([grid.ravel() for grid in grids])
        true = np.flatnonzero(flat >= 0)
        places = np.empty(len(true), dtype=np.int64)
        places[flat[true]] = true

        def there(numbers: np.ndarray) -> Tensor:
            return torch.from_numpy(numbers).to(device)

        self._levels = [
            (there(grid.clip(0)), there(sizes[rows])) for grid, rows in zip(grids, levels, strict=True)
        ]  # what is read before what follows it: which tokens, padded with any, and how many are true
        self._places = there(places)  # of each token in all levels, one after the other
        self._starts = there(begins[np.concatenate([stems, branches])])
        self._ends = there(begins[stems] + sizes[stems] - 1)
        self._sources = there(owners[branches])

    def mix(
        self,
        x: Tensor,
        last: Tensor,
        shares: Sequence[Tensor],
        *,
        current: bool = False,
        parts: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """All as one row, then the first token of each stem and branch once more, since another one is before it."""
        before = torch.cat([last, x[0, self._ends[self._sources]]])
        copies = None if parts is None else parts[:, self._starts]  # the memory of `parts` is used
        firsts = mix(x[0, self._starts], before, shares, current=current, parts=copies)
        for mixed, first in zip(mix(x, last[:1], shares, current=current, parts=parts), firsts, strict=True):
            mixed[0, self._starts] = first
            yield mixed

    def scan(self, call: Scan, sequences: Sequence[Tensor], state: Any) -> tuple[Tensor, Any]:
        """Stems, then branches from the stems' states."""
        outputs, after = [], None
        for index, lengths in self._levels:
            before = state if after is None else _taken(after, self._sources)
            y, end = call(*(x[0, index] for x in sequences), before, lengths)
            after = end if after is None else after
            outputs.append(y.flatten(0, 1))
        return torch.cat(outputs)[self._places][None], after


def _grid(begins: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Numbers [rows, longest] of each row's tokens, -1 beyond its end."""
    steps = np.arange(sizes.max())
    return np.where(steps < sizes[:, None], begins[:, None] + steps, -1)


def _taken(state: Any, rows: Tensor) -> Any:
    return state[rows] if isinstance(state, Tensor) else tuple(part[rows] for part in state)
