"""What trees of texts are compared with: each stem with each of its branches, read alone."""

from __future__ import annotations

from typing import Any

import torch

from rwkv_core.spec import Tree

FORESTS = {
    "lone": [Tree(7)],
    "one token": [Tree(1)],
    "several lone ones": [Tree(3), Tree(1), Tree(12)],
    "one branch": [Tree(5, (4,))],
    "mixed": [Tree(9, (1, 4, 2)), Tree(2), Tree(1, (1, 1)), Tree(17, (3,)), Tree(4), Tree(1, (8, 1, 2, 3, 1))],
    "many branches": [Tree(3, tuple(1 + i % 5 for i in range(40))), Tree(30, (2, 7))],
}


@torch.inference_mode()
def check(model: Any, trees: list[Tree]) -> None:
    """Read in one pass, every hidden vector is that of its text alone."""
    total = sum(tree.stem + sum(tree.branches) for tree in trees)
    tokens = torch.randint(model.spec.vocab_size, (total,), generator=torch.Generator().manual_seed(total))
    found = model.read(tokens, trees)
    texts, expected = iter(tokens.split([size for tree in trees for size in (tree.stem, *tree.branches)])), []
    for tree in trees:
        stem = next(texts)
        expected.append(model.hidden(stem[None])[0][0])
        for branch in [next(texts) for _ in tree.branches]:
            expected.append(model.hidden(torch.cat([stem, branch])[None])[0][0, tree.stem :])
    right = torch.cat(expected)
    bound = 1e-12 if right.dtype == torch.float64 else 1e-5
    assert found.shape == right.shape
    assert float((found - right).abs().max()) <= bound * float(right.abs().max())
