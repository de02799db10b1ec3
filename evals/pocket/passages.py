"""Items that are answered from their passage, or from what the passage says of known things."""

from __future__ import annotations

import random

from evals.pocket.items import MISHAPS, PHRASES, Made, draw_thing, either
from evals.pocket.world import Split, world

SUBJECTS = {  # WinoGrande: two of whom one is meant, and which clause tells which
    "thing": [
        ("The {0} did not fit into the {1} because the _", "was too large", "was too small"),
        ("The {0} was put on top of the {1} because the _", "was light", "was strong"),
        ("The {0} cost more than the {1} because the _", "was new", "was old"),
        ("The {0} was sold before the {1} because the _", "was wanted more", "was wanted less"),
    ],
    "person": [
        ("{0} helped {1} because _", "was kind", "was in trouble"),
        ("{0} asked {1} because _", "did not know the way", "knew the way"),
        ("{0} ran after {1} because _", "had been robbed", "had stolen the bread"),
        ("{0} lent {1} a coin because _", "was rich", "was poor"),
        ("{0} thanked {1} because _", "had got a present", "had brought a present"),
        ("{0} could not hear {1} because _", "was deaf", "spoke too softly"),
    ],
}


def boolq(rng: random.Random, split: Split) -> Made:
    """Whether something of a named material or a thing behaves so; whether someone is where another may be."""
    w = world()
    names = rng.sample(list(w.guests), 3)
    rooms = rng.sample(w.rooms, 3)
    where = [f"{name} is in the {room}." for name, room in zip(names, rooms, strict=True)]
    about = rng.choice(["gift", "thing", "room"])
    if about != "room":
        thing, material, _ = draw_thing(rng, split)
        if about == "gift":
            material = rng.choice(list(w.materials))
        kind = rng.choice(list(MISHAPS))
        values = sorted({str(facts[kind]) for facts in w.materials.values()})
        value = w.materials[material][kind]
        right = rng.random() < 0.5
        asked = value if right else rng.choice([other for other in values if other != value])
        if about == "gift":
            passage = f"{where[0]} {names[0]} has a gift of {material}. {where[1]}"
            question = f"is it true that the gift of {names[0]} {PHRASES[asked][0]}"
            return ("gift", names[0], material, kind), {"passage": passage, "question": question, "label": int(right)}
        passage = f"{where[0]} The {thing} is in the {rooms[1]}."
        question = f"is it true that the {thing} {PHRASES[asked][0]}"
        return ("behaves", kind, thing), {"passage": passage, "question": question, "label": int(right)}
    asked_of = rng.randrange(3)
    room = asked_of if rng.random() < 0.5 else (asked_of + rng.choice([1, 2])) % 3
    passage, question = " ".join(where), f"is {names[asked_of]} in the {rooms[room]}"
    return ("told", passage, question), {"passage": passage, "question": question, "label": int(room == asked_of)}


def lambada_openai(rng: random.Random, split: Split) -> Made:
    """The last word is a name or a place that the story gave at its beginning."""
    w = world()
    first, second, third = rng.sample(list(w.guests), 3)
    cup, ring = rng.sample(list(w.things), 2)
    here, there = rng.sample(w.rooms, 2)
    if rng.random() < 0.5:
        told = f"{first} owned the {cup} and {second} owned the {ring}."
        lost = f"One day in {rng.choice(w.towns)} both were lost."
        thing, owner = rng.choice([(cup, first), (ring, second)])
        end = f"{third} found the {thing} in the {here} and gave it back to {owner}"
        return ("told", told, lost, end), {"text": f"{told} {lost} {end}"}
    told = f"{first} hid the {cup} in the {here}. {second} hid the {ring} in the {there}."
    came = f"{third} came from {rng.choice(w.towns)} to visit them."
    name, thing, room = rng.choice([(first, cup, here), (second, ring, there)])
    end = f"{name} went to fetch the {thing} from the {room}"
    return ("told", told, came, end), {"text": f"{told} {came} {end}"}


def record(rng: random.Random, split: Split) -> Made:
    """Who was meant, told from the other side than in the passage."""
    w = world()
    names = rng.sample(list(w.guests), 4)
    pairs = [(names[0], names[1]), (names[2], names[3])]
    thing, lent = rng.sample(list(w.things), 2)
    game = rng.choice(w.pastimes)
    told = [
        (
            f"{{0}} sold the {thing} to {{1}}.",
            (f"@placeholder no longer has the {thing}", f"@placeholder paid for the {thing}"),
        ),
        (
            f"{{0}} lent the {lent} to {{1}}.",
            (f"The {lent} belongs to @placeholder", f"@placeholder must return the {lent}"),
        ),
        (f"{{0}} taught {game} to {{1}}.", (f"@placeholder gave a lesson in {game}", f"@placeholder learned {game}")),
    ]
    told = rng.sample(told, 2)
    asked, side = rng.randrange(2), rng.randrange(2)
    sentences = [sentence.format(*pair) for (sentence, _), pair in zip(told, pairs, strict=True)]
    if rng.random() < 0.5:  # the other two do nothing that could be confused
        sentences[1 - asked] = f"{' and '.join(pairs[1 - asked])} knew nothing."
    query = told[asked][1][side]
    answer = pairs[asked][side]
    passage = f"News from {rng.choice(w.towns)}: {' '.join(sentences)}\n@highlight\nThis was in the news"
    made = {"passage": passage, "query": f"{query}.", "entities": sorted(names), "answers": [answer]}
    return ("told", passage, query), made


def sciq(rng: random.Random, split: Split) -> Made:
    """Where someone keeps something, told in the passage, alone or among three more."""
    w = world()
    names = rng.sample(list(w.guests), 4)
    things = rng.sample(list(w.things), 4)
    rooms = rng.sample(w.rooms, 4)
    asked = rng.randrange(4)
    alone = rng.random() < 0.5  # the others keep nothing
    told = [
        f"{n} {rng.choice(w.habits[rng.choice(list(w.habits))])}."
        if alone and i != asked
        else f"{n} keeps the {t} in the {r}."
        for i, (n, t, r) in enumerate(zip(names, things, rooms, strict=True))
    ]
    wrong = [f"in the {room}" for i, room in enumerate(rooms) if i != asked]
    made = {
        "support": " ".join(told),
        "question": f"Where does {names[asked]} keep the {things[asked]}?",
        "correct_answer": f"in the {rooms[asked]}",
    }
    made |= {f"distractor{i}": other for i, other in enumerate(wrong, 1)}
    return ("told", made["support"], made["question"]), made


def winogrande(rng: random.Random, split: Split) -> Made:
    """Which of two is meant, told by what is said of it or by what it is made of."""
    w = world()
    meant = rng.randrange(2)
    subject = rng.choice(["thing", "person", "behaviour"])
    if subject == "behaviour":
        thing, _, facts = draw_thing(rng, split)
        kind = rng.choice(list(MISHAPS))
        (unlike,) = w.unlike(rng, split, kind, facts[kind], 1)
        one, other = (thing, unlike) if meant == 0 else (unlike, thing)
        told = f"The {one} and the {other} {MISHAPS[kind]}, and only the _ {PHRASES[facts[kind]][1]}."
        fact: tuple[str, ...] = ("behaves", kind, thing)
    else:
        one, other = rng.sample(list(w.things if subject == "thing" else w.guests), 2)
        template, *clauses = rng.choice(SUBJECTS[subject])
        told = f"{template.format(one, other)} {clauses[meant]}."
        fact = ("meant", one, other)
    option1, option2, answer = either(rng, (one, other)[meant], (other, one)[meant])
    return fact, {"sentence": told, "option1": option1, "option2": option2, "answer": str(answer + 1)}
