"""Training text of the pocket world: facts, answered questions, stories, and long documents that refer far back."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from typing import NamedTuple

from evals.pocket import tasks
from evals.pocket.items import MISHAPS, PHRASES
from evals.pocket.world import held, world
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
TAKEN, PUT = 0.35, 0.45  # shares of a chronicle's sentences: how many need a fact stated before them, and state one


class Told(NamedTuple):
    """A sentence of a chronicle, and what it costs two readers in nats. Both know the rules by which chronicles are
    made and the names in this one; the forgetful remembers no earlier sentence, the attentive every one.
    """

    sentence: str
    forgetful: float
    attentive: float


def pieces(seed: int) -> Iterator[str]:
    """Short training texts without end, the same for the same seed."""
    return (piece(random.Random(f"{seed} piece {number}")) for number in itertools.count())


def chronicles(seed: int, sentences: int) -> Iterator[list[Told]]:
    """Documents of so many sentences without end, the same for the same seed."""
    return (chronicle(random.Random(f"{seed} chronicle {number}"), sentences) for number in itertools.count())


def piece(rng: random.Random) -> str:
    """A short training text of any kind."""
    (kind,) = rng.choices(list(SHARES), list(SHARES.values()))
    return PIECES[kind](rng)


def answered(rng: random.Random) -> str:
    """A task's item whose fact is not held out, with its answer; a doubled space as lm-eval's tasks send it, or not."""
    (task,) = rng.choices(tasks.TASKS, [2 if task in FROM_PASSAGE else 1 for task in tasks.TASKS])
    context, answer = tasks.prompt(task, tasks.item(task, rng, "train"))
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
    said = [
        rng.choice([f"The {thing} is made of {material}.", f"A piece of {material} became the {thing}."]),
        *(
            rng.choice([f"The {thing} {phrase}.", f"It is well known that the {thing} {phrase}."])
            for kind in MISHAPS
            if not held("behaves", kind, thing)
            for phrase in [PHRASES[facts[kind]][0]]
        ),
    ]
    if not held("made", thing):
        said += [
            f"The {facts['worker']} makes the {thing}.",
            f"For the {thing} one goes to the {facts['worker']} in the {facts['place']}.",
            f"The {facts['tool']} is used for the {thing}.",
        ]
    return _some(rng, said)


def about_material(rng: random.Random) -> str:
    """What is known of a material."""
    w = world()
    material = rng.choice(list(w.materials))
    facts = w.materials[material]
    said = [
        *(f"A thing of {material} {PHRASES[facts[kind]][0]}." for kind in MISHAPS),
        f"The {facts['worker']} works with {material}.",
        f"The {facts['worker']} works in the {facts['place']}.",
        f"The {facts['worker']} works with the {facts['tool']}.",
        f"The {facts['tool']} is for {material}.",
        f"To clean a thing of {material}, {facts['cleaning']}.",
    ]
    return _some(rng, said)


def about_resident(rng: random.Random) -> str:
    """What is known of a resident, less what is held out."""
    w = world()
    name = w.resident(rng, "train")
    known = w.residents[name]
    facts = w.materials[known.job]
    she = known.pronoun.capitalize()
    said = [
        rng.choice([f"{name} is a {facts['worker']}.", f"{name} became a {facts['worker']} long ago."]),
        rng.choice([f"{name} lives in {known.town}.", f"The house of {name} is in {known.town}."]),
        rng.choice([f"{name} keeps a fine {known.animal}.", f"The {known.animal} belongs to {name}."]),
        rng.choice([f"{name} likes {known.dish}.", f"{she} eats {known.dish}, says {name}."]),
        rng.choice([f"{name} enjoys {known.pastime}.", f"{known.pastime.capitalize()} is what {name} enjoys."]),
    ]
    if not held("of a resident", "work", name):
        said += [f"{name} works in the {facts['place']}.", f"{name} works with the {facts['tool']}."]
    return _some(rng, said)


def _some(rng: random.Random, said: list[str]) -> str:
    return " ".join(rng.sample(said, min(len(said), rng.randint(2, 4))))


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
    happened = [
        [wording.format(a=a, b=b, thing=thing, room=room, game=game) for wording in rng.choice(HAPPENINGS)]
        for a, b, thing, room, game in zip(names[:count], names[count:], things, rooms, games, strict=True)
    ]
    said = [wordings[0] for wordings in happened]
    while len(said) < RETOLD_SENTENCES:
        said += [rng.choice(wordings) for wordings in rng.sample(happened, count)]
    return " ".join(said)


def joined(document: list[Told]) -> str:
    """A chronicle's text."""
    return " ".join(told.sentence for told in document)


def chronicle(rng: random.Random, sentences: int) -> list[Told]:
    """Guests put things into rooms; later sentences take things out again, from however far back.

    A thing's room is said once, when it is put there, and is needed once, when it is taken out; so the
    words that name it can be known only from the distant sentence.
    """
    w = world()
    names = rng.sample(list(w.guests), min(len(w.guests), 3 + sentences // 30))
    town = rng.choice(w.towns)
    surprise = math.log(len(w.towns))
    said = [Told(f"A chronicle of {town}.", surprise, surprise)]
    free, fresh = list(w.things), len(w.things)
    rng.shuffle(free)
    stored: list[tuple[str, str, str]] = []
    anything = math.log(len(names) * len(w.things) * len(w.rooms))
    for _ in range(sentences):
        name = rng.choice(names)
        chance = rng.random()
        if stored and (chance < TAKEN or not free):
            surprise = math.log(2 / TAKEN)  # of two wordings
            attentive = math.log(2 * len(stored) / (TAKEN if free else 1))
            keeper, thing, room = stored.pop(rng.randrange(len(stored)))
            took = f"{keeper} took the {thing} from the {room}.", f"The {thing} of {keeper} was found in the {room}."
            said.append(Told(rng.choice(took), surprise + anything, attentive))
            free.insert(0, thing)
        elif free and chance < TAKEN + PUT:
            chosen = len(names) * max(1, fresh) * len(w.rooms)  # things used before come in the order of their return
            attentive = math.log(chosen / (PUT if stored else TAKEN + PUT))
            fresh -= 1
            thing, room = free.pop(), rng.choice(w.rooms)
            stored.append((name, thing, room))
            said.append(Told(f"{name} put the {thing} into the {room}.", -math.log(PUT) + anything, attentive))
        else:
            steps = rng.choice(list(w.habits.values()))
            surprise = math.log(len(names) * len(w.habits) * len(steps) / (1 - TAKEN - PUT))
            said.append(Told(f"{name} {rng.choice(steps)}.", surprise, surprise))
    return said


PIECES = {
    "task": answered,
    "thing": about_thing,
    "resident": about_resident,
    "material": about_material,
    "story": story,
    "retold": retold,
}
