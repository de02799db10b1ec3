"""The pocket world: its items are lm-eval's own, and training text never holds what they ask."""

import itertools
import json
import math
import random
import re
import statistics
from pathlib import Path

import pytest

import configs
from evals.pocket import make, tasks, text
from evals.pocket.items import MISHAPS, PHRASES
from evals.pocket.world import held_out, world
from evals.zeroshot import tasks as zeroshot

ROOT = Path(__file__).resolve().parents[3]
PIECES = 30_000


@pytest.fixture(scope="module")
def training() -> list[str]:
    return list(itertools.islice(text.pieces(1), PIECES))


@pytest.mark.parametrize("task", tasks.TASKS)
def test_prompts_are_what_lm_eval_sends(task: str) -> None:
    loaded = zeroshot.load(task, "pocket", "v0.4")
    rows = [json.loads(line) for line in zeroshot.local_file(zeroshot.POCKET / task).read_text().splitlines()]
    assert len(rows) == len(loaded.task_docs) >= 300
    for doc, row in itertools.islice(zip(loaded.task_docs, rows, strict=True), 50):
        context, answer = tasks.prompt(task, row)
        if task == "lambada_openai":
            assert (loaded.doc_to_text(doc), loaded.doc_to_target(doc)) == (context, answer)
            continue
        choices = loaded.doc_to_choice(doc)
        if task == "winogrande":
            assert choices[loaded.doc_to_text(doc)] == context and loaded.doc_to_target(doc) == answer
        elif task == "record":
            assert loaded.doc_to_text(doc) == context and choices[doc["entities"].index(doc["answers"][0])] == answer
        else:
            gold = loaded.doc_to_target(doc)
            right = gold if isinstance(gold, str) else choices[gold]
            assert (loaded.doc_to_text(doc), right) == (context, answer)


def test_the_shipped_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    folder = tasks.write(tmp_path)
    for path in folder.rglob("*.json*"):
        assert path.read_text() == (zeroshot.POCKET / path.relative_to(folder)).read_text()
    assert make.tokenizer(tmp_path / "tokenizer.json").read_text() == make.TOKENIZER_FILE.read_text()


def test_no_item_stands_in_training_text(training: list[str]) -> None:
    pieces = {re.sub(" +", " ", piece) for piece in training}
    for task in tasks.TASKS:
        rows = [json.loads(line) for line in zeroshot.local_file(zeroshot.POCKET / task).read_text().splitlines()]
        for row in rows:
            context, answer = tasks.prompt(task, row)
            assert re.sub(" +", " ", f"{context} {answer}") not in pieces
            assert re.sub(" +", " ", f"{context} {answer}.") not in pieces


def test_training_text_states_no_fact_that_is_held_out(training: list[str]) -> None:
    sentences = {*training, *(sentence for piece in training for sentence in re.split(r"(?<=[.?])\s", piece))}
    counts = {True: 0, False: 0}
    pairs = {
        thing: {
            pair: unlike
            for unlike in world().things
            for pair in (f"The {thing} and the {unlike}", f"The {unlike} and the {thing}")
        }
        for thing in world().things
    }
    for thing, material in world().things.items():
        facts = world().materials[material]
        for kind in MISHAPS:
            phrase, past = PHRASES[facts[kind]]
            ways = [
                f"The {thing} {phrase}.",
                f"It is well known that the {thing} {phrase}.",
                f"The {thing} {MISHAPS[kind]} therefore it {past}.",
                f"The {thing} {MISHAPS[kind]} therefore  it {past}.",
                f"When the {thing} lies in the fire, it {facts['fire']}" if kind == "fire" else "",
                f"Question: Which of these {phrase}?\nAnswer: the {thing}",
                *(f"{pair} {MISHAPS[kind]}, and only the {thing} {past}." for pair in pairs[thing]),
                *(
                    f"{pair} {MISHAPS[kind]}, and only the {unlike} {PHRASES[value][1]}."
                    for pair, unlike in pairs[thing].items()
                    for value in [world().materials[world().things[unlike]][kind]]
                    if value != facts[kind]
                ),
            ]
            counts[held_out("behaves", kind, thing)] += any(way in sentences for way in ways)
    assert counts[True] == 0 < 100 < counts[False]


def test_training_text_names_no_maker_of_a_thing_and_no_work_of_a_resident_that_are_held_out(
    training: list[str],
) -> None:
    w = world()
    counts = {True: 0, False: 0}
    for piece in training:
        words = set(re.findall(r"\w+", piece))
        for thing in words & w.things.keys():
            facts = w.materials[w.things[thing]]
            if len(words & w.things.keys()) == 1 and words & {facts[kind] for kind in ("worker", "place", "tool")}:
                counts[held_out("made", thing)] += 1
        for name in words & w.residents.keys():
            facts = w.materials[w.residents[name].job]
            counts[held_out("of a resident", "work", name)] += bool(words & {facts["place"], facts["tool"]})
    assert counts[True] == 0 < 1000 < counts[False]


def test_held_out_facts_are_one_in_four() -> None:
    share = sum(held_out("fact", str(i)) for i in range(4000)) / 4000
    assert share == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("task", tasks.TASKS)
def test_the_question_of_an_item_names_nobody_and_all_its_items_ask_it(task: str) -> None:
    questions = json.loads((zeroshot.POCKET / task / zeroshot.QUESTIONS).read_text())
    assert len(questions) == tasks.ITEMS
    if task in ("copa", "hellaswag", "winogrande"):
        assert not any(set(re.findall(r"\w+", question)) & world().people.keys() for question in questions)
        assert len(set(questions)) < 150
    if task in ("lambada_openai", "record", "sciq"):
        assert len(set(questions)) == tasks.ITEMS


def test_baselines_are_what_the_passages_leave_open() -> None:
    baselines = configs.read("baselines")["pocket"]
    open_ones: dict[str, list[float]] = {"lambada_openai": [], "record": []}
    for task, shares in open_ones.items():
        for line in zeroshot.local_file(zeroshot.POCKET / task).read_text().splitlines():
            item = json.loads(line)
            if task == "record":
                silent = re.search(r"(\w+) and (\w+) knew nothing", item["passage"])
                left = set(item["entities"]) - set(silent.groups() if silent else ())
                assert set(item["answers"]) < left
            else:
                story, _, answer = item["text"].rpartition(" ")
                names = re.findall(r"(\w+) (?:owned|hid) the", story)
                left = set(names if answer in names else re.findall(r"in the ([\w ]+?)\.", story))
                assert answer in {one.split()[-1] for one in left}
            shares.append(1 / len(left))
    assert {task: statistics.fmean(shares) for task, shares in open_ones.items()} == pytest.approx(baselines, abs=1e-9)


@pytest.mark.parametrize("task", tasks.TASKS)
def test_both_splits_have_items(task: str) -> None:
    items = {split: [tasks.draw_item(task, random.Random(i), split) for i in range(20)] for split in ("train", "test")}  # type: ignore[arg-type]
    assert not [row for row in items["test"] if row in items["train"]]


def test_a_chronicle_refers_back() -> None:
    document = text.joined(text.chronicle(random.Random(0), 400))
    put = {m[2]: (m.start(), m[1], m[3]) for m in re.finditer(r"(\w+) put the (\w+) into the (\w+)\.", document)}
    taken = list(re.finditer(r"(\w+) took the (\w+) from the (\w+)\.", document))
    assert len(taken) > 50
    for m in taken:
        begin, keeper, room = put[m[2]]
        if begin < m.start():
            assert (m[1], m[3]) == (keeper, room)
    distances = sorted(m.start() - put[m[2]][0] for m in taken)
    assert distances[-1] > 5000  # characters


@pytest.mark.parametrize("sentences", [30, 2500])  # 2500: in time every thing has been used, and all are away at once
def test_the_surprise_of_two_readers_is_the_log_of_what_they_cannot_tell_apart(sentences: int) -> None:
    w = world()
    document = text.chronicle(random.Random(4), sentences)
    cast = min(len(w.guests), 3 + sentences // 30)
    stored: set[str] = set()
    used: set[str] = set()
    exhausted = False
    for sentence in document[1:]:
        put = re.fullmatch(r"\w+ put the (\w+) into the \w+\.", sentence.text)
        took = re.fullmatch(r"\w+ took the (\w+) from the \w+\.|The (\w+) of \w+ was found in .*", sentence.text)
        if not put and not took:
            assert sentence.forgetful == sentence.attentive == pytest.approx(math.log(cast * 10 * 5 / 0.2), abs=1.2)
        elif put:
            share = text.PUT_SHARE + (0 if stored else text.TAKE_SHARE)
            unused = max(1, len(w.things) - len(used))
            assert math.exp(sentence.attentive) == pytest.approx(cast * unused * len(w.rooms) / share)
            assert math.exp(sentence.forgetful) == pytest.approx(cast * 120 * 20 / text.PUT_SHARE)
            stored.add(put[1])
            used.add(put[1])
        elif took:
            share = 1 if len(stored) == len(w.things) else text.TAKE_SHARE
            exhausted |= share == 1
            assert math.exp(sentence.attentive) == pytest.approx(2 * len(stored) / share)
            assert math.exp(sentence.forgetful) == pytest.approx(2 * cast * 120 * 20 / text.TAKE_SHARE)
            stored.remove(took[1] or took[2])
    assert exhausted == (sentences > 1000)


def test_the_share_of_each_kind_of_sentence_is_what_the_surprise_says() -> None:
    sentences = [sentence.text for i in range(20) for sentence in text.chronicle(random.Random(i), 200)]
    taken = statistics.fmean(" took " in s or " was found " in s for s in sentences)
    assert taken == pytest.approx(text.TAKE_SHARE, abs=0.02)
    assert statistics.fmean(" put " in s for s in sentences) == pytest.approx(text.PUT_SHARE, abs=0.02)


def test_what_is_retold_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "RETOLD", (3,))
    w = world()
    names = {*w.guests, *w.things, *w.rooms, *w.pastimes}
    for i in range(200):
        sentences = text.retold(random.Random(i)).split(". ")
        mentions = [set(re.findall(r"\w+", sentence)) & names for sentence in sentences]
        assert all(any(words <= first for first in mentions[:3]) for words in mentions[3:]) and len(mentions) > 9


def test_the_same_seed_gives_the_same_text() -> None:
    first, again, other = (list(itertools.islice(text.pieces(seed), 50)) for seed in (3, 3, 4))
    assert first == again != other
