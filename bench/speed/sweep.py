"""One pass over growing contexts: what is carried is filled in chunks, and at each stop tokens are timed behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from bench.instruments import clock, disturbance, memory
from bench.instruments.energy import Meter
from bench.speed import agreement, replayed
from rwkv_core import finite
from rwkv_core.decode import generate, greedy
from rwkv_core.load import free_memory
from rwkv_core.models import check_room
from rwkv_core.spec import LanguageModel

ONE_PASS = 4096  # tokens of a batch, up to which a context is read again in one pass to check what was carried

T = TypeVar("T")


class _Filled(NamedTuple):
    """A state that has read `context` tokens, and the seconds that this took."""

    context: int
    state: Any
    seconds: float


class Sweep:
    """One pass over tokens [B, N + 1], N being the longest context."""

    def __init__(
        self, model: LanguageModel, device: str, tokens: Tensor, steps: int, repeats: int, chunk: int, graph: bool
    ) -> None:
        self.model, self.device, self.tokens = model, device, tokens
        self.steps, self.repeats, self.chunk = steps, repeats, chunk
        self.graph = self.graphed = graph  # whether steps are replayed where they can be, and whether all were
        self.replayed: replayed.Replayed | None = None
        self.meter = Meter(device)
        self.disturbed: list[dict[str, Any]] = []
        self.filled = _Filled(0, None, 0.0)
        self.dtype = torch.float32  # of the logits

    @torch.inference_mode()
    def points(self, contexts: Sequence[int]) -> Iterator[dict[str, Any]]:
        """What was measured at each of the contexts, which rise."""
        for context in contexts:
            self._check_room(context)
            before, more = self.filled, contexts[-1] + max(self.steps, self.chunk)
            if context <= self.chunk or before.context < self.chunk:  # from nothing
                before = _Filled(0, None, 0.0)
            room = context + self.steps if context < self.chunk else more
            self.filled, self.replayed = before, None  # which holds its cache
            first, first_disturbed = self._watched(
                partial(self._fill, before, context, room), self.repeats if context <= self.chunk else 1
            )
            del before  # a cache that is longer now
            if self.graph:
                self.replayed = replayed.of(self.model, self.filled.state, self.steps, self.tokens[:, :1])
                self.graphed &= self.replayed is not None
            timed, step_disturbed = self._watched(self._step, self.repeats)
            made, logits = timed[-1][2:]
            yield {
                "context_tokens": context,
                "first_token_seconds": first,
                "first_token_disturbed": first_disturbed,
                "step_seconds": [seconds for seconds, *_ in timed],
                "step_disturbed": step_disturbed,
                "joules": [joules for _, joules, *_ in timed],
                "state_bytes": self.model.state_bytes(self.filled.state),
                **self._working(),
                **self._checked(made, logits),
            }

    def _check_room(self, context: int) -> None:
        """Raises MemoryError before anything is read where the cache or state alone is more than is free."""
        spec, batch = self.model.spec, len(self.tokens)
        more = spec.state_bytes(context + self.steps, self.model.itemsize, batch)
        more -= spec.state_bytes(self.filled.context, self.model.itemsize, batch)
        check_room(spec, more, free_memory(self.device), f"at {context} tokens of context", "cache or state")

    def _watched(self, attempt: Callable[[int], T], count: int) -> tuple[list[T], list[bool]]:
        """The results, and of each whether something disturbed it."""
        results, watch = disturbance.watched(attempt, count, disturbance.Watch(self.device))
        self.disturbed.append(watch)
        return results, [bool(interval["reasons"]) for interval in watch["intervals"]]

    def _fill(self, before: _Filled, context: int, room: int, _: int) -> float:
        """Read on from `before` to `context` tokens; seconds from the first of all to the first new token."""
        model = self.model
        state = model.fork(before.state) if before.context else model.reserve(room)
        started = clock.start(self.device)
        for start in range(before.context, context, self.chunk):
            hidden, state = model.hidden(self.tokens[:, start : min(start + self.chunk, context)], state, last=True)
        started.mark()
        greedy(model.logits(hidden[:, -1]))
        started.mark()
        filled, first = started.seconds()
        self.filled = _Filled(context, state, before.seconds + filled)
        return before.seconds + first

    def _step(self, _: int) -> tuple[list[float], float | None, Tensor, Tensor]:
        """Seconds of each step behind what is filled, joules of all; the tokens read and made [B, steps + 1], and the
        last logits [B, V].
        """
        context, last = self.filled.context, list[Tensor]()
        model: Any = self.replayed or self.model
        state = self.model.fork(self.filled.state)
        if self.replayed:
            self.replayed.reset()

        def pick(logits: Tensor) -> Tensor:
            last[:] = [logits]
            return greedy(logits)

        joules, started = self.meter.since(), clock.start(self.device)
        read = self.tokens[:, context : context + 1]
        made = generate(model, read, self.steps, state=state, pick=pick, mark=started.mark)[0]
        marks = started.seconds()
        used = self.meter.since(joules)
        self.dtype = last[0].dtype
        return [after - before for before, after in pairwise([0.0, *marks])], used, made, last[0]

    def _working(self) -> dict[str, int]:
        """Bytes beyond weights and cache or state that reading a chunk takes at this context, and a step."""
        model, context, state = self.model, self.filled.context, self.filled.state
        limit = model.spec.max_tokens or context + self.chunk
        part = self.tokens[:, : min(self.chunk, context, limit - context if context > self.chunk else context)]

        def read(tokens: Tensor, state: Any) -> None:
            hidden, _ = model.hidden(tokens, state, keep=state is not None, last=True)
            greedy(model.logits(hidden[:, -1]))

        behind = model.fork(state) if context > self.chunk else None
        chunk = memory.working(self.device, lambda: read(part, behind)) if part.shape[1] else 0
        behind = model.fork(state)
        return {
            "chunk_bytes": chunk,
            "step_bytes": memory.working(self.device, lambda: read(part[:, :1], behind)),
        }

    def _checked(self, made: Tensor, logits: Tensor) -> dict[str, Any]:
        """How far the logits after the steps are from those of the same tokens read at once: all of them, or where
        they are many those of the steps alone.
        """
        context, state, _ = self.filled
        if not bool(finite.rows(logits).all()):
            finite.refuse(self.model, torch.cat([self.tokens[:, :context], made[:, :-1]], 1))
        if self.tokens[:, : context + self.steps].numel() <= ONE_PASS:
            every = torch.cat([self.tokens[:, :context], made[:, :-1]], 1)
            hidden, _ = self.model.hidden(every, keep=False, last=True)
        elif self.model.ragged:
            hidden, _ = self.model.hidden(made[:, :-1], self.model.fork(state), last=True)
        else:
            return {"disagreement": None}
        return {"disagreement": agreement.bounded(self.model, logits, self.model.logits(hidden[:, -1]))}
