"""Needles: the fact stands where it is said to stand, RULER's texts are lm-eval's, and its rule of scoring too."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from evals.needles import haystacks
from evals.needles import run as needles
from evals.needles.haystacks import DEPTHS, Needle
from rwkv_core import text as tokenizers
from rwkv_core.errors import BadInput, Unsupported
from rwkv_core.load import load
from rwkv_core.models import find
from rwkv_core.spec import ModelSpec
from tests.evals.zeroshot.test_tasks import SHAPE

FACT = re.compile(r"(\w+) put the ([\w ]+) into the (\w+)\.")
QUESTION = re.compile(r"The ([\w ]+) of (\w+) was found in the$")


def encode(text: str) -> list[int]:
    return [len(word) for word in re.findall(r" ?\w+|\W", text)]


@pytest.mark.parametrize("length", [64, 300])
@pytest.mark.parametrize("task", ["pocket_passkey", "pocket_needle"])
def test_a_pocket_text_says_once_what_it_asks_for(task: str, length: int) -> None:
    first, again, reseeded = (haystacks.TASKS[task].make(encode, length, 40, seed) for seed in (0, 0, 1))
    assert first == again != reseeded
    for number, needle in enumerate(first):
        question = QUESTION.search(needle.prompt)
        assert question
        facts = {at.groups()[:2]: at for at in FACT.finditer(needle.prompt)}
        fact = facts[question[2], question[1]]
        room, start = fact[3], fact.start()
        assert needle.answers == [f" {room}"] and needle.answers[0] in needle.choices
        assert needle.prompt[: question.start()].count(f" {question[1]} ") == 1  # nothing else is said of that thing
        assert needle.depth == number % DEPTHS / (DEPTHS - 1)
        place = start / (question.start() - len(f"{question[2]} put the {question[1]} into the {room}. "))
        assert place == pytest.approx(needle.depth, abs=0.3 if length == 64 else 0.12)
        longest = max(len(encode(needle.prompt + choice)) for choice in needle.choices)
        assert 0.7 * length < longest <= length
        rooms = {r.strip() for r in needle.choices if f"{r}." in needle.prompt}
        assert needle.named == 1 / len(rooms)
        if task == "pocket_passkey":
            assert rooms == {room} and len(facts) == 1


def test_texts_among_many_hold_many() -> None:
    (needle,) = haystacks.TASKS["pocket_needle"].make(encode, 500, 1, 0)
    assert len(FACT.findall(needle.prompt)) > 15


class Asker:
    """Answers as it is told."""

    def __init__(self, right: list[Needle], wrong: bool) -> None:
        self.known = {needle.prompt: needle.answers for needle in right}
        self.wrong = wrong

    def score(self, pairs: list[tuple[str, str]]) -> list[tuple[float, bool]]:
        return [(float((choice in self.known[prompt]) != self.wrong), False) for prompt, choice in pairs]


def test_an_oracle_scores_all_and_a_liar_nothing() -> None:
    made = haystacks.TASKS["pocket_needle"].make(encode, 100, 10, 0)
    for wrong in (False, True):
        items = needles._scored(Asker(made, wrong), made)  # type: ignore[arg-type]
        assert [item["share"] for item in items] == [float(not wrong)] * 10
        assert [item["depth"] for item in items] == [needle.depth for needle in made]


@pytest.fixture(scope="module")
def encoded(tokenizer: Path) -> Iterator[haystacks.Encode]:
    """A tokenizer, put in place of any from the hub in lm-eval's own tasks."""
    pytest.importorskip("wonderwords")
    ours = tokenizers.read(tokenizer)
    with pytest.MonkeyPatch.context() as patch:
        named = haystacks._tokenizer(lambda text: ours.encode(text).ids)
        patch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_, **__: named)
        yield lambda text: ours.encode(text).ids


@pytest.mark.parametrize("task", [*haystacks.RULER, "fwe"])
def test_ruler_is_lm_evals(task: str, encoded: haystacks.Encode) -> None:
    import lm_eval.tasks

    length = 1024
    made = haystacks.TASKS[task].make(encoded, length, 20, 7)
    asked = {"tokenizer": "ours", "max_seq_lengths": [length - (haystacks.FREQUENT_TOKENS if task == "fwe" else 0)]}
    ruler = Path(lm_eval.tasks.__file__).parent / "ruler"  # alone: reading all that lm-eval has takes seconds
    manager = lm_eval.tasks.TaskManager(include_path=str(ruler), include_defaults=False, metadata=asked)
    with haystacks._seeded(7):
        (theirs,) = manager.load(["ruler_fwe" if task == "fwe" else task])["tasks"].values()
    theirs.build_all_requests(limit=20, rank=0, world_size=1)
    for needle, instance in zip(made, theirs.instances, strict=True):
        assert (needle.prompt, needle.new_tokens) == (instance.args[0], instance.args[1]["max_gen_toks"])
        assert list(needle.answers) == instance.doc["outputs"]


@pytest.mark.parametrize("task", haystacks.RULER)
def test_a_depth_is_the_place_of_the_answers_line(task: str, encoded: haystacks.Encode) -> None:
    for needle in haystacks.TASKS[task].make(encoded, 1024, 10, 0):
        _, *lines, _ = needle.prompt.split("\n")
        assert needle.depth is not None
        assert f": {needle.answers[0]}." in lines[round(needle.depth * (len(lines) - 1))]
        assert needle.named == (1 if task == "niah_single_1" else 1 / len(lines))


@pytest.mark.parametrize(
    "text", ["", "4\x01 2", "it is 42.", "ABC then 42", "42 abc", "abc", "4 2", " aBc\n", "abcd", "none of them"]
)
def test_a_text_scores_as_in_lm_eval(text: str) -> None:
    pytest.importorskip("wonderwords")
    (common,) = haystacks._modules("common_utils")
    needle = Needle("?", ["42", "Abc"], 0.5, 0.0, 0.0, new_tokens=4)
    asker = SimpleNamespace(generate=lambda asked: [text for _ in asked])
    (item,) = needles._generated(asker, [needle])  # type: ignore[arg-type]
    theirs = common.process_results({"outputs": list(needle.answers), "max_length": 4096}, [text])
    assert item["share"] == theirs["4096"]


def test_models_read_beyond_their_window_and_nothing_is_cut() -> None:
    own = load(find("pocket-rwkv4"))
    metrics, samples = needles.run(own, device="cpu", task="pocket_needle", length=300, docs=10)
    assert own.spec.context_length == 256 < metrics["tokens"] <= 300 and metrics["truncated"] == 0
    assert metrics["accuracy"] == pytest.approx(sum(item["share"] for item in samples["items"]) / 10)
    assert metrics["chance"] == 1 / 20 and metrics["state_bytes"] == own.spec.state_bytes(300)


def test_what_cannot_be_read_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unsupported, match="2048 positions, and 4096 are needed"):
        needles.run(load(find("pocket-opt")), device="cpu", task="pocket_passkey", length=4096, docs=5)
    for length, why in ((150, "Could not generate any"), (260, "have no room")):
        with pytest.raises(Unsupported, match=f"niah_single_1: .*{why}"):
            haystacks.TASKS["niah_single_1"].make(encode, length, 4, 0)
    for length in (64, 100, 128, 200, 240):
        with pytest.raises(Unsupported, match=f"fwe: {length} tokens have no room"):
            haystacks.TASKS["fwe"].make(encode, length, 2, 0)
    assert [len(needle.answers) for needle in haystacks.TASKS["fwe"].make(encode, 400, 2, 0)] == [3, 3]
    monkeypatch.setitem(sys.modules, "lm_eval.tasks.ruler.prepare_niah", None)
    with pytest.raises(BadInput, match=r"pip install 'rwkv-bench\[ruler\]'"):
        haystacks.TASKS["niah_single_1"].make(encode, 512, 2, 0)


def test_generated_answers_of_a_model_are_scored(encoded: haystacks.Encode, tokenizer: Path) -> None:
    spec = ModelSpec("small", "rwkv4", SHAPE, weights="random:0", context_length=64)  # type: ignore[arg-type]
    metrics, samples = needles.run(
        load(spec), device="cpu", task="niah_multikey_2", length=700, docs=3, tokenizer=str(tokenizer)
    )
    assert (metrics["accuracy"], metrics["truncated"], metrics["docs"]) == (0.0, 0, 3)
    assert all(0 <= item["depth"] <= 1 for item in samples["items"])
