"""Greedy text until a stop string, prompts of different lengths in one batch: each row's state is that of its true end,
so that no padding ever enters a state, and the text is the same as with the prompt alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from tqdm import tqdm

from evals.ask.halving import halving
from evals.ask.score import Scorer
from evals.ask.sharing import batches
from rwkv_core import finite
from rwkv_core.errors import BadInput
from rwkv_core.text import Codec

MAX_NEW_TOKENS = 256  # lm-eval's own default
NOT_FINITE = -1  # in a token's place, so that the logits' state comes with the token and costs no wait of its own


class Reader(Protocol):
    """What generates: a model with its tokenizer and its window, and what ends a text."""

    scorer: Scorer
    codec: Codec
    prefix: list[int]
    max_length: int
    counts: Counter[str]

    @property
    def ends(self) -> set[int]: ...

    @property
    def eot_token_id(self) -> int: ...

    @property
    def prefix_token_id(self) -> int: ...

    def tok_encode(self, string: str) -> list[int]: ...


@dataclass
class Prompt:
    """One request: its tokens, where to stop, and what has been generated."""

    tokens: list[int]
    stops: list[str]
    most: int
    number: int
    generated: list[int] = field(default_factory=list)
    text: str = ""

    def accept(self, token: int, reader: Reader) -> bool:
        """Take the next token; False where the text has ended."""
        if token in reader.ends:
            return False
        self.generated.append(token)
        self.text = reader.codec.decode(self.generated)
        stop_positions = [self.text.index(stop) for stop in self.stops if stop in self.text]
        if stop_positions:
            self.text = self.text[: min(stop_positions)]
        return not stop_positions and len(self.generated) < self.most


def generate_until(reader: Reader, requests: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """(context, lm-eval's generation arguments) -> the text after each. Raises BadInput where sampling is asked for."""
    prompts = [_prompt(reader, number, *request) for number, request in enumerate(requests)]
    model, limits = reader.scorer.model, reader.scorer.limits
    rows = sorted(prompts, key=lambda prompt: len(prompt.tokens), reverse=True)
    itemsize = model.itemsize
    with tqdm(total=len(rows), desc=reader.scorer.label, unit="prompt", leave=False, dynamic_ncols=True) as bar:
        for part in [rows] if model.ragged else _alike(rows):
            longest = len(part[0].tokens) + max(prompt.most for prompt in part)
            most_rows = max(1, limits.state_bytes // model.spec.state_bytes(longest, itemsize))
            for cut in batches([len(p.tokens) for p in part], limits.tokens, most_rows, limits.call_tokens):
                halving(lambda batch: _run(reader, batch), part[cut])
                bar.update(cut.stop - cut.start)
    return [prompt.text for prompt in prompts]


def _prompt(reader: Reader, number: int, context: str, options: Mapping[str, Any]) -> Prompt:
    if options.get("do_sample") or options.get("temperature", 0.0) > 0:
        raise BadInput(f"only greedy generation is measured, and the task asks for {dict(options)}")
    until = options.get("until", [])
    most = int(options.get("max_gen_toks", MAX_NEW_TOKENS))
    tokens = [*reader.prefix, *(reader.tok_encode(context) or [reader.prefix_token_id])]
    window = reader.max_length - most
    if window < 1:
        raise BadInput(f"{most} new tokens leave no room for a prompt in a window of {reader.max_length}")
    reader.counts["requests"] += 1
    reader.counts["truncated"] += len(tokens) > window
    stops = [*([until] if isinstance(until, str) else until), reader.codec.spelled(reader.eot_token_id)]
    return Prompt(tokens[-window:], [stop for stop in stops if stop], most, number)


def _alike(rows: Sequence[Prompt]) -> list[list[Prompt]]:
    """Rows of one length together, for a model that keeps no ragged states."""
    by_length: dict[int, list[Prompt]] = {}
    for prompt in rows:
        by_length.setdefault(len(prompt.tokens), []).append(prompt)
    return list(by_length.values())


@torch.inference_mode()
def _run(reader: Reader, batch: Sequence[Prompt]) -> None:
    """All prompts of a batch to their end; rows that have ended are dropped from the state."""
    model, device = reader.scorer.model, reader.scorer.device
    for prompt in batch:  # it may be a second try, after memory ran out
        prompt.generated, prompt.text = [], ""
    lengths = torch.tensor([len(prompt.tokens) for prompt in batch], device=device)
    padded = torch.zeros(len(batch), int(lengths.max()), dtype=torch.long, device=device)
    for row, prompt in zip(padded, batch, strict=True):
        row[: len(prompt.tokens)] = torch.tensor(prompt.tokens, device=device)
    state = model.reserve(padded.shape[1] + max(prompt.most for prompt in batch) - 1)
    hidden, state = model.hidden(padded, state, lengths if model.ragged else None)
    last = hidden[torch.arange(len(batch), device=device), lengths - 1]
    going = list(batch)
    while True:
        logits = model.logits(last)
        tokens = logits.argmax(-1).where(finite.rows(logits), NOT_FINITE)
        next_ids = tokens.tolist()
        if NOT_FINITE in next_ids:
            prompt = going[next_ids.index(NOT_FINITE)]
            finite.refuse(model, [*prompt.tokens, *prompt.generated])
        unfinished = [i for i, token in enumerate(next_ids) if going[i].accept(token, reader)]
        if not unfinished:
            return
        if len(unfinished) < len(going):
            rows = torch.tensor(unfinished, device=device)
            state, tokens, going = model.take(state, rows), tokens[rows], [going[i] for i in unfinished]
        hidden, state = model.hidden(tokens[:, None], state)
        last = hidden[:, -1]
