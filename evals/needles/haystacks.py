"""Texts that hide a fact and ask for it: the pocket world's chronicles, and RULER's (arXiv:2404.06654) by lm-eval."""

from __future__ import annotations

import contextlib
import functools
import importlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

from evals.language.corpus import SENTENCE_TOKENS
from evals.pocket.text import chronicle
from evals.pocket.world import world
from rwkv_core.errors import BadInput, Unsupported

Encode = Callable[[str], list[int]]

DEPTHS = 5  # as many places, evenly from the start to the question, in the pocket documents
QUIET = 6  # so many more sentences are made where only those stay that put nothing anywhere
RULER_TOKENS = 128  # RULER's room for an answer
FREQUENT_TOKENS = 50  # and for the frequent words
FREQUENT_VOCABULARY = 4  # dots and three words at least; RULER takes one for every 50 tokens
RULER: dict[str, dict[str, str]] = {  # task -> what its text, keys and values are made of
    "niah_single_1": {"type_haystack": "repeat", "type_needle_k": "words", "type_needle_v": "numbers"},
    "niah_multikey_2": {"type_haystack": "needle", "type_needle_k": "words", "type_needle_v": "numbers"},
    "niah_multikey_3": {"type_haystack": "needle", "type_needle_k": "uuids", "type_needle_v": "uuids"},
}


@dataclass(frozen=True)
class Needle:
    """One question. depth: where its fact stands, 0 at the start and 1 just before the question; None for no one place.
    choices: what may be answered, scored; without any, a text of `new_tokens` is generated. chance, named: what a guess
    scores, among all answers and among those that the text names.
    """

    prompt: str
    answers: Sequence[str]
    depth: float | None
    chance: float
    named: float
    choices: Sequence[str] = ()
    new_tokens: int = 0


def pocket(encode: Encode, length: int, docs: int, seed: int, *, quiet: bool) -> list[Needle]:
    """A chronicle in which someone put a thing into a room, once; where was it found? quiet: nothing else is put
    anywhere, so that only one room is named.
    """
    token_count = functools.cache(lambda sentence: len(encode(f" {sentence}")))
    return [_pocket(random.Random(f"{seed} {length} {i}"), token_count, length, i, quiet) for i in range(docs)]


def _pocket(rng: random.Random, token_count: Callable[[str], int], length: int, number: int, quiet: bool) -> Needle:
    w = world()
    name, thing, room = rng.choice(list(w.guests)), rng.choice(list(w.things)), rng.choice(w.rooms)
    fact, question = f"{name} put the {thing} into the {room}.", f"The {thing} of {name} was found in the"
    avoided = w.things if quiet else [thing]
    sentences = (QUIET if quiet else 2) * (length // SENTENCE_TOKENS)
    opening, *following = (sentence.text for sentence in chronicle(rng, sentences))
    haystack = [opening]
    budget = length - sum(map(token_count, (opening, fact, question))) - max(token_count(r) for r in w.rooms)
    for sentence in following:
        if any(f" {avoid} " in sentence for avoid in avoided):
            continue
        budget -= token_count(sentence)
        if budget < 0:
            break
        haystack.append(sentence)
    depth = number % DEPTHS / (DEPTHS - 1)
    place = 1 + round(depth * (len(haystack) - 1))
    text = " ".join([*haystack[:place], fact, *haystack[place:]])
    rooms = sum(f" {r}." in text for r in w.rooms)
    choices = [f" {r}" for r in w.rooms]
    return Needle(f"{text} {question}", [f" {room}"], depth, 1 / len(choices), 1 / rooms, choices)


def ruler(encode: Encode, length: int, docs: int, seed: int, *, task: str) -> list[Needle]:
    """A number or identifier under a key, among sentences that repeat or among many more such keys. Raises
    Unsupported where the length has no room for as many texts as were asked for, or for so many lines as depths.
    """
    niah, niah_utils = _modules("prepare_niah", "niah_utils")
    with _seeded(seed):
        try:
            samples = niah.generate_samples(
                niah.get_haystack(RULER[task]["type_haystack"]),
                max_seq_length=length,
                template=niah_utils.TEMPLATE,
                num_samples=docs,
                tokens_to_generate=RULER_TOKENS,
                TOKENIZER=_tokenizer(encode),
                **RULER[task],
            )
        except ValueError as error:
            raise Unsupported(f"{task}: {str(error).partition('.')[0]}") from error
    needles = [_ruler(doc) for doc in samples if doc["input"].count("\n") > DEPTHS]
    if len(needles) < docs:
        raise Unsupported(f"{task}: {length} tokens are too few, {docs - len(needles)} of {docs} texts have no room")
    return needles


def _ruler(doc: dict[str, Any]) -> Needle:
    _, *lines, _ = doc["input"].split("\n")
    (answer,) = doc["outputs"]
    key = doc["gen_prefix"].partition(" mentioned")[0].rpartition(" for ")[2]
    place = next(i for i, line in enumerate(lines) if f" for {key} is: {answer}." in line)
    needle_count = sum(" is: " in line for line in lines)
    prompt = f"{doc['input']} {doc['gen_prefix']}"
    return Needle(prompt, [answer], place / (len(lines) - 1), 0.0, 1 / needle_count, new_tokens=RULER_TOKENS)


def frequent_words(encode: Encode, length: int, docs: int, seed: int) -> list[Needle]:
    """The three most frequent of made-up words, whose frequencies fall as a power of their rank. Raises Unsupported
    where the length has no room for three.
    """
    (fwe,) = _modules("fwe_utils")
    prompt_tokens = length - FREQUENT_TOKENS
    if prompt_tokens < FREQUENT_VOCABULARY * 50 or len(encode(fwe.TEMPLATE)) > prompt_tokens // 2:
        raise Unsupported(f"fwe: {length} tokens have no room for words of different frequency; ask for more")
    with _seeded(seed):
        samples = fwe.sys_kwext(_tokenizer(encode), prompt_tokens, num_samples=docs)
    return [_frequent_words(doc) for doc in samples]


def _frequent_words(doc: dict[str, Any]) -> Needle:
    words = set(doc["input"].partition("coded words. ")[2].partition("\n")[0].split()) - {"..."}
    prompt, named = f"{doc['input']} {doc['gen_prefix']}", len(doc["outputs"]) / len(words)
    return Needle(prompt, doc["outputs"], None, 0.0, named, new_tokens=FREQUENT_TOKENS)


def _modules(*names: str) -> list[ModuleType]:
    """Of lm-eval's RULER, which needs more packages than lm-eval does."""
    try:
        return [importlib.import_module(f"lm_eval.tasks.ruler.{name}") for name in names]
    except ImportError as error:
        raise BadInput("RULER's tasks need wonderwords and nltk: pip install 'rwkv-bench[ruler]'") from error


def _tokenizer(encode: Encode) -> Callable[[str], SimpleNamespace]:
    """As RULER calls one. (By name it would load one that may run its own code.)"""
    return lambda text: SimpleNamespace(input_ids=encode(text))


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """RULER draws from Python's one generator."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


@dataclass(frozen=True)
class Task:
    """title: on the page. make: (encode, tokens, count, seed) -> needles."""

    title: str
    make: Callable[[Encode, int, int, int], list[Needle]]


TASKS = {
    "pocket_passkey": Task(
        "One thing put into one room, nothing else put anywhere (pocket world)", functools.partial(pocket, quiet=True)
    ),
    "pocket_needle": Task(
        "One thing put into a room, among many others (pocket world)", functools.partial(pocket, quiet=False)
    ),
    **{
        task: Task(f"{title} (RULER {task})", functools.partial(ruler, task=task))
        for task, title in (
            ("niah_single_1", "One number among sentences that repeat"),
            ("niah_multikey_2", "One number among many under other keys"),
            ("niah_multikey_3", "The same with identifiers"),
        )
    },
    "fwe": Task("The three most frequent words (RULER fwe)", frequent_words),
}
