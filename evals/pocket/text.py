"""Training text of the pocket world: facts, answered questions, stories, and long documents that refer far back."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from typing import NamedTuple

from evals.pocket import tasks
from evals.pocket.items import MISHAPS, PHRASES
from evals.pocket.world import held_out, world
from evals.zeroshot import tasks as catalogue

SHARES = {  # how often a piece is of which kind
    "task": 12,
    "thing": 4,
    "resident": 3,
    "material": 1,
    "story": 1,
    "retold": 4,
}
FROM_PASSAGE = ("boolq", "lambada_openai", "record", "sciq", "winogrande")  # hard to learn: asked twice as often
STORY_SENTENCES = (10, 30)
HAPPENINGS = (  # what happens to {a} or between {a} and {b}: its first wording, and others that tell it again
    ("{a} keeps the {thing} in the {room}.", "The {thing} of {a} is kept in the {room}."),
    ("{a} put the {thing} into the {room}.", "{a} took the {thing} from the {room}."),
    ("{a} hid the {thing} in the {room}.", "{a} went to fetch the {thing} from the {room}."),
    ("{a} is in the {room}.", "Whoever looks for {a} goes to the {room}."),
    ("{a} owned the {thing}.", "Someone found the {thing} and gave it back to {a}."),
    ("{a} sold the {thing} to {b}.", "{a} no longer has the {thing}.", "{b} paid for the {thing}."),
    ("{a} lent the {thing} to {b}.", "The {thing} belongs to {a}.", "{b} must return the {thing}."),
    ("{a} taught {game} to {b}.", "{a} gave a lesson in {game}.", "{b} learned {game}."),
)
RETOLD = (1, 1, 1, 2, 2, 3, 4)  # happenings in a piece: one alone teaches that what was told is told again
RETOLD_SENTENCES = 10
TAKE_SHARE = 0.35  # of a chronicle's sentences: those that need a fact stated before them
PUT_SHARE = 0.45  # those that state one


class Sentence(NamedTuple):
    """A sentence of a chronicle, and what it costs two readers in nats. Both know the rules by which chronicles are
    made and the names in this one; the forgetful remembers no earlier sentence, the attentive every one.
    """

    text: str
    forgetful: float
    attentive: float


def pieces(seed: int) -> Iterator[str]:
    """Short training texts without end, the same for the same seed."""
    return (piece(random.Random(f"{seed} piece {number}")) for number in itertools.count())


def chronicles(seed: int, sentences: int) -> Iterator[list[Sentence]]:
    """Documents of so many sentences without end, the same for the same seed."""
    return (chronicle(random.Random(f"{seed} chronicle {number}"), sentences) for number in itertools.count())


def piece(rng: random.Random) -> str:
    """A short training text of any kind."""
    (kind,) = rng.choices(list(SHARES), list(SHARES.values()))
    return PIECES[kind](rng)


def answered(rng: random.Random) -> str:
    """A task's item whose fact is not held out, with its answer; a doubled space as lm-eval's tasks send it, or not."""
    (task,) = rng.choices(tasks.TASKS, [2 if task in FROM_PASSAGE else 1 for task in tasks.TASKS])
    context, answer = tasks.prompt(task, tasks.draw_item(task, rng, "train"))
    spaced = answer.startswith(" ")
    if not spaced or (catalogue.entry(task).get("own_space") and rng.random() < 0.5):
        context += " "
    end = "." if task == "lambada_openai" else ""
    return context + answer + end


def about_thing(rng: random.Random) -> str:
    """What is known of a thing, less what is held out."""
    w = world()
    thing = w.thing(rng, "train")
    material = w.things[thing]
    facts = w.materials[material]
    sentences = [
        rng.choice([f"The {thing} is made of {material}.", f"A piece of {material} became the {thing}."]),
        *(
            rng.choice([f"The {thing} {phrase}.", f"It is well known that the {thing} {phrase}."])
            for kind in MISHAPS
            if not held_out("behaves", kind, thing)
            for phrase in [PHRASES[facts[kind]][0]]
        ),
    ]
    if not held_out("made", thing):
        sentences += [
            f"The {facts['worker']} makes the {thing}.",
            f"For the {thing} one goes to the {facts['worker']} in the {facts['place']}.",
            f"The {facts['tool']} is used for the {thing}.",
        ]
    return _some(rng, sentences)


def about_material(rng: random.Random) -> str:
    """What is known of a material."""
    w = world()
    material = rng.choice(list(w.materials))
    facts = w.materials[material]
    sentences = [
        *(f"A thing of {material} {PHRASES[facts[kind]][0]}." for kind in MISHAPS),
        f"The {facts['worker']} works with {material}.",
        f"The {facts['worker']} works in the {facts['place']}.",
        f"The {facts['worker']} works with the {facts['tool']}.",
        f"The {facts['tool']} is for {material}.",
        f"To clean a thing of {material}, {facts['cleaning']}.",
    ]
    return _some(rng, sentences)


def about_resident(rng: random.Random) -> str:
    """What is known of a resident, less what is held out."""
    w = world()
    name = w.resident(rng, "train")
    resident = w.residents[name]
    facts = w.materials[resident.job]
    she = resident.pronoun.capitalize()
    sentences = [
        rng.choice([f"{name} is a {facts['worker']}.", f"{name} became a {facts['worker']} long ago."]),
        rng.choice([f"{name} lives in {resident.town}.", f"The house of {name} is in {resident.town}."]),
        rng.choice([f"{name} keeps a fine {resident.animal}.", f"The {resident.animal} belongs to {name}."]),
        rng.choice([f"{name} likes {resident.dish}.", f"{she} eats {resident.dish}, says {name}."]),
        rng.choice([f"{name} enjoys {resident.pastime}.", f"{resident.pastime.capitalize()} is what {name} enjoys."]),
    ]
    if not held_out("of a resident", "work", name):
        sentences += [f"{name} works in the {facts['place']}.", f"{name} works with the {facts['tool']}."]
    return _some(rng, sentences)


def _some(rng: random.Random, sentences: list[str]) -> str:
    return " ".join(rng.sample(sentences, min(len(sentences), rng.randint(2, 4))))


def story(rng: random.Random) -> str:
    """A short chronicle."""
    return joined(chronicle(rng, rng.randint(*STORY_SENTENCES)))


def retold(rng: random.Random) -> str:
    """A few happenings, told again and again in changing order and wording: most of its words follow from earlier
    ones, which is what teaches a small model to look them up.
    """
    w = world()
    count = rng.choice(RETOLD)
    names = rng.sample(list(w.guests), 2 * count)
    things, rooms, games = (rng.sample(kind, count) for kind in (list(w.things), w.rooms, w.pastimes))
    events = [
        [wording.format(a=a, b=b, thing=thing, room=room, game=game) for wording in rng.choice(HAPPENINGS)]
        for a, b, thing, room, game in zip(names[:count], names[count:], things, rooms, games, strict=True)
    ]
    sentences = [wordings[0] for wordings in events]
    while len(sentences) < RETOLD_SENTENCES:
        sentences += [rng.choice(wordings) for wordings in rng.sample(events, count)]
    return " ".join(sentences)


def joined(document: list[Sentence]) -> str:
    """A chronicle's text."""
    return " ".join(sentence.text for sentence in document)


def chronicle(rng: random.Random, sentences: int) -> list[Sentence]:
    """Guests put things into rooms; later sentences take things out again, from however far back.

    A thing's room is said once, when it is put there, and is needed once, when it is taken out; so the
    words that name it can be known only from the distant sentence.
    """
    w = world()
    names = rng.sample(list(w.guests), min(len(w.guests), 3 + sentences // 30))
    town = rng.choice(w.towns)
    surprise = math.log(len(w.towns))
    document = [Sentence(f"A chronicle of {town}.", surprise, surprise)]
    free, fresh = list(w.things), len(w.things)
    rng.shuffle(free)
    stored: list[tuple[str, str, str]] = []
    anything = math.log(len(names) * len(w.things) * len(w.rooms))
    for _ in range(sentences):
        name = rng.choice(names)
        chance = rng.random()
        if stored and (chance < TAKE_SHARE or not free):
            surprise = math.log(2 / TAKE_SHARE)  # of two wordings
            attentive = math.log(2 * len(stored) / (TAKE_SHARE if free else 1))
            keeper, thing, room = stored.pop(rng.randrange(len(stored)))
            wording = rng.choice(["{n} took the {t} from the {r}.", "The {t} of {n} was found in the {r}."])
            sentence = wording.format(n=keeper, t=thing, r=room)
            document.append(Sentence(sentence, surprise + anything, attentive))
            free.insert(0, thing)
        elif free and chance < TAKE_SHARE + PUT_SHARE:
            choices = len(names) * max(1, fresh) * len(w.rooms)  # things used before come in the order of their return
            attentive = math.log(choices / (PUT_SHARE if stored else TAKE_SHARE + PUT_SHARE))
            fresh -= 1
            thing, room = free.pop(), rng.choice(w.rooms)
            stored.append((name, thing, room))
            surprise = -math.log(PUT_SHARE) + anything
            document.append(Sentence(f"{name} put the {thing} into the {room}.", surprise, attentive))
        else:
            steps = rng.choice(list(w.habits.values()))
            surprise = math.log(len(names) * len(w.habits) * len(steps) / (1 - TAKE_SHARE - PUT_SHARE))
            document.append(Sentence(f"{name} {rng.choice(steps)}.", surprise, surprise))
    return document


PIECES = {
    "task": answered,
    "thing": about_thing,
    "resident": about_resident,
    "material": about_material,
    "story": story,
    "retold": retold,
}
