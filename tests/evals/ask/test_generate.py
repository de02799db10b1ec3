"""Generation in batches of different lengths: the text of each prompt alone."""

from pathlib import Path
from typing import Any

import pytest
import torch

from evals.ask.asker import Asker
from evals.ask.score import Scorer
from rwkv_core.errors import BadInput
from rwkv_core.text import Codec
from tests.evals.ask.test_score import FAMILIES, TIGHT, WIDE, model_of


def letters(family: str, limits: Any = WIDE) -> Asker:
    """One character a token, so that any token can be read."""

    def encode(text: str) -> list[int]:
        return [ord(c) % 128 for c in text]

    codec = Codec(encode, lambda tokens: "".join(map(chr, tokens)), encode, lambda token: "")
    model = model_of(family)
    model.spec = type(model.spec)(**{**vars(model.spec), "context_length": 60})
    return Asker(Scorer(model, "cpu", limits=limits), codec, "v0.4")


def prompts() -> list[tuple[str, dict[str, Any]]]:
    texts = ["a", "The river follows", "Question: who?\nAnswer:", "xyzzy", "The kettle", "a prompt of some length"]
    options = {"until": ["\n", "Q"], "do_sample": False}
    return [(text, {**options, "max_gen_toks": 4 + 3 * i}) for i, text in enumerate(texts)]


@pytest.mark.parametrize("limits", [TIGHT, WIDE], ids=["tight", "wide"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_is_its_prompts_alone(family: str, limits: Any) -> None:
    batched = letters(family, limits).generate(prompts())
    alone = [letters(family).generate([prompt])[0] for prompt in prompts()]
    assert batched == alone
    assert len(set(batched)) > 2 and any(len(text) > 8 for text in batched)


def test_no_cache_grows_beyond_what_was_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    asker = letters("pythia")
    model: Any = asker.scorer.model
    reserve, hidden = model.reserve, model.hidden
    reserved: list[int] = []
    seen: list[tuple[int, int]] = []

    def reserving(tokens: int) -> Any:
        reserved.append(tokens)
        return reserve(tokens)

    def spy(*arguments: Any, **more: Any) -> Any:
        result = hidden(*arguments, **more)
        seen.extend((layer.capacity, reserved[-1]) for layer in result[1].cache.layers)
        return result

    monkeypatch.setattr(model, "reserve", reserving)
    monkeypatch.setattr(model, "hidden", spy)
    asker.generate(prompts())
    assert len(seen) > 10 and all(capacity <= room for capacity, room in seen)
    assert {capacity for capacity, _ in seen} >= set(reserved)


def test_text_ends_before_the_first_stop_string() -> None:
    asker = letters("rwkv4")
    (text, options), *_ = prompts()[3:]
    whole = asker.generate([(text, {**options, "until": []})])[0]
    assert len(whole) == options["max_gen_toks"]
    cut = asker.generate([(text, {**options, "until": [whole[5:7], whole[2:4]]})])[0]
    assert cut == whole[: whole.index(whole[2:4])]


def test_a_long_prompt_is_cut_and_sampling_refused() -> None:
    asker = letters("rwkv4")
    assert asker.generate([("x" * 100, {"until": [], "max_gen_toks": 5})])[0]
    assert asker.counts == {"requests": 1, "truncated": 1}
    with pytest.raises(BadInput, match="no room for a prompt"):
        asker.generate([("x", {"max_gen_toks": 60})])
    with pytest.raises(BadInput, match="only greedy"):
        asker.generate([("x", {"do_sample": True, "max_gen_toks": 5})])


@pytest.mark.parametrize(
    ("tokens", "until", "text"),
    [
        ([1, 2, 3, 5, 6, 7], ["\n"], "né龙"),
        ([1, 8], ["\n"], "n龙"),
        ([4, 2, 3], ["é"], " "),
        ([1, 2, 3, 0], [], "né"),
        ([1, 5, 6, 100, 4, 1, 5], [], "n龙 n\ufffd"),
    ],
)
def test_a_character_of_several_tokens(
    tokens: list[int], until: list[str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The World tokenizer's tokens may be parts of characters, and have none."""
    codec = Codec.of_world([b"", b"n", b"\xc3", b"\xa9", b" ", b"\xe9\xbe", b"\x99", b"\n", "龙\n".encode()])
    asker = Asker(Scorer(model_of("rwkv4"), "cpu", limits=WIDE), codec, "v0.4")
    script = iter(tokens)
    monkeypatch.setattr(asker.scorer.model, "logits", lambda _: torch.eye(128)[[next(script)]])
    assert asker.generate([("n", {"until": until, "max_gen_toks": 7})]) == [text]
    assert next(script, None) is None


class _Instance:
    def __init__(self, args: tuple[str, dict[str, Any]]) -> None:
        self.args = args


def _instances(requests: list[tuple[str, dict[str, Any]]]) -> list[_Instance]:
    return [_Instance(request) for request in requests]


def test_the_triviaqa_task_runs(data: str, tokenizer: Path) -> None:
    from evals.zeroshot.run import run
    from tests.evals.zeroshot.test_tasks import model

    metrics, samples = run(model(), device="cpu", task="triviaqa", data=data, tokenizer=str(tokenizer), docs=4)
    assert metrics["docs"] == 4 and 0 <= metrics["exact_match"] <= 1 and "text" in samples["items"][0]
