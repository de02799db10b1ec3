"""The one encoder of all mixers: embedding, pre-norm residual blocks, the mean over tokens, a head."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from evals.lra.mixers import KINDS, label
from evals.lra.mixers.shape import Positions, Shape, angles
from rwkv_core.errors import Unsupported

ALIKE = 0.1  # encoders are of one budget if their parameters differ by less
LEAST_INNER = 8


@dataclass(frozen=True)
class Size:
    """inner: the hidden width of the feed-forward sublayers."""

    layers: int
    width: int
    heads: int
    inner: int
    dropout: float = 0.0


@dataclass(frozen=True)
class Problem:
    """values: how many a token may have, padding apart; pixels: the value itself is the input, as a number. pairs: two
    sequences are compared.
    """

    values: int
    classes: int
    length: int
    pairs: bool = False
    pixels: bool = False


class Encoder(nn.Module):
    """tokens [B, T] (0 for padding), lengths [B] -> logits [B, classes]; pairs go through the same weights."""

    def __init__(self, mixer: str, size: Size, problem: Problem, *, bidirectional: bool) -> None:
        super().__init__()
        kind, width = KINDS[mixer], size.width
        self.problem, self.ordered = problem, kind.ordered
        self.embedding = nn.Linear(1, width) if problem.pixels else nn.Embedding(problem.values + 1, width)
        if not self.ordered:
            self.place = Positions(_waves(problem.length, width))
        self.blocks = nn.ModuleList(
            _Block(kind.build(Shape(width, size.heads, problem.length, i, size.layers, bidirectional)), size)
            for i in range(size.layers)
        )
        self.norm = nn.LayerNorm(width)
        joined = 4 * width if problem.pairs else width
        self.head = nn.Sequential(nn.Linear(joined, 2 * width), nn.ReLU(), nn.Linear(2 * width, problem.classes))

    @property
    def budget(self) -> int:
        """Parameters of the blocks: what is compared. Not embedding and head, which all have, nor what a mixer or the
        encoder has for each position.
        """
        return sum(p.numel() for p in self.blocks.parameters() if not isinstance(p, Positions))

    def forward(
        self, tokens: Tensor, lengths: Tensor, second: Tensor | None = None, second_lengths: Tensor | None = None
    ) -> Tensor:
        first = self.encode(tokens, lengths)
        if second is None or second_lengths is None:
            return self.head(first)
        pair = self.encode(second, second_lengths)
        return self.head(torch.cat([first, pair, first * pair, first - pair], -1))

    def encode(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """[B, T] -> [B, C]."""
        valid = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        if self.problem.pixels:
            x = self.embedding((tokens[..., None].float() - 1) / (self.problem.values - 1) * 2 - 1)
        else:
            x = self.embedding(tokens)
        if not self.ordered:
            x = x + self.place[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, valid)
        mask = valid[..., None].to(x.dtype)
        return (self.norm(x) * mask).sum(1) / mask.sum(1)


def _waves(length: int, width: int) -> Tensor:
    """Sines and cosines [T, C] of the embedding's size (arXiv:1706.03762, sec. 3.5): where learned positions start."""
    turns = angles(length, -(-width // 2)).float()
    return torch.stack([turns.sin(), turns.cos()], -1).flatten(1)[:, :width]


class _Block(nn.Module):
    def __init__(self, mixer: nn.Module, size: Size) -> None:
        super().__init__()
        self.mixer = mixer
        self.before, self.between = nn.LayerNorm(size.width), nn.LayerNorm(size.width)
        self.wide, self.back = nn.Linear(size.width, size.inner), nn.Linear(size.inner, size.width)
        self.drop = nn.Dropout(size.dropout)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        x = x + self.drop(self.mixer(self.before(x), valid))
        return x + self.drop(self.back(torch.nn.functional.gelu(self.wide(self.between(x)))))


def matched(mixer: str, size: Size, problem: Problem, *, bidirectional: bool) -> Size:
    """The size with the feed-forward width that gives this mixer the budget of attention at `size`. Raises Unsupported
    where the mixer alone takes more, or it cannot run in that direction.
    """
    kind = KINDS[mixer]
    if not (kind.bidirectional if bidirectional else kind.causal):
        raise Unsupported(f"{label(mixer)} cannot be run {'in both directions' if bidirectional else 'causally'}")
    budget = _budget("attention", size, problem, bidirectional)
    mixer_budget = _budget(mixer, replace(size, inner=LEAST_INNER), problem, bidirectional)
    each = size.layers * (2 * size.width + 1)  # parameters of one hidden unit, in all layers
    matched_size = replace(size, inner=max(LEAST_INNER, LEAST_INNER + round((budget - mixer_budget) / each)))
    parameters = _budget(mixer, matched_size, problem, bidirectional)
    if abs(parameters / budget - 1) > ALIKE:
        raise Unsupported(
            f"{label(mixer)} has {parameters:,} parameters in its blocks at width {size.width} even with the narrowest "
            f"feed-forward layers, and attention has {budget:,}: more than {ALIKE:.0%} apart"
        )
    return matched_size


def _budget(mixer: str, size: Size, problem: Problem, bidirectional: bool) -> int:
    with torch.random.fork_rng(devices=[]):
        return Encoder(mixer, size, problem, bidirectional=bidirectional).budget
