"""Items that are answered from their passage, or from what the passage says of known things."""

from __future__ import annotations

import random

from evals.pocket.items import MISHAPS, PHRASES, FactAndItem, draw_thing, either
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


def boolq(rng: random.Random, split: Split) -> FactAndItem:
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
        behaviour = value if right else rng.choice([alternative for alternative in values if alternative != value])
        if about == "gift":
            passage = f"{where[0]} {names[0]} has a gift of {material}. {where[1]}"
            question = f"is it true that the gift of {names[0]} {PHRASES[behaviour][0]}"
            return ("gift", names[0], material, kind), {"passage": passage, "question": question, "label": int(right)}
        passage = f"{where[0]} The {thing} is in the {rooms[1]}."
        question = f"is it true that the {thing} {PHRASES[behaviour][0]}"
        return ("behaves", kind, thing), {"passage": passage, "question": question, "label": int(right)}
    subject = rng.randrange(3)
    room = subject if rng.random() < 0.5 else (subject + rng.choice([1, 2])) % 3
    passage, question = " ".join(where), f"is {names[subject]} in the {rooms[room]}"
    return ("told", passage, question), {"passage": passage, "question": question, "label": int(room == subject)}


def lambada_openai(rng: random.Random, split: Split) -> FactAndItem:
    """The last word is a name or a place that the story gave at its beginning."""
    w = world()
    first, second, third = rng.sample(list(w.guests), 3)
    cup, ring = rng.sample(list(w.things), 2)
    here, there = rng.sample(w.rooms, 2)
    if rng.random() < 0.5:
        setting = f"{first} owned the {cup} and {second} owned the {ring}."
        loss = f"One day in {rng.choice(w.towns)} both were lost."
        thing, owner = rng.choice([(cup, first), (ring, second)])
        end = f"{third} found the {thing} in the {here} and gave it back to {owner}"
        return ("told", setting, loss, end), {"text": f"{setting} {loss} {end}"}
    setting = f"{first} hid the {cup} in the {here}. {second} hid the {ring} in the {there}."
    arrival = f"{third} came from {rng.choice(w.towns)} to visit them."
    name, thing, room = rng.choice([(first, cup, here), (second, ring, there)])
    end = f"{name} went to fetch the {thing} from the {room}"
    return ("told", setting, arrival, end), {"text": f"{setting} {arrival} {end}"}


def record(rng: random.Random, split: Split) -> FactAndItem:
    """Who was meant, told from the other side than in the passage."""
    w = world()
    names = rng.sample(list(w.guests), 4)
    pairs = [(names[0], names[1]), (names[2], names[3])]
    thing, loan = rng.sample(list(w.things), 2)
    game = rng.choice(w.pastimes)
    statements = [
        (
            f"{{0}} sold the {thing} to {{1}}.",
            (f"@placeholder no longer has the {thing}", f"@placeholder paid for the {thing}"),
        ),
        (
            f"{{0}} lent the {loan} to {{1}}.",
            (f"The {loan} belongs to @placeholder", f"@placeholder must return the {loan}"),
        ),
        (f"{{0}} taught {game} to {{1}}.", (f"@placeholder gave a lesson in {game}", f"@placeholder learned {game}")),
    ]
    statements = rng.sample(statements, 2)
    target, side = rng.randrange(2), rng.randrange(2)
    sentences = [sentence.format(*pair) for (sentence, _), pair in zip(statements, pairs, strict=True)]
    if rng.random() < 0.5:  # the other two do nothing that could be confused
        sentences[1 - target] = f"{' and '.join(pairs[1 - target])} knew nothing."
    query = statements[target][1][side]
    answer = pairs[target][side]
    passage = f"News from {rng.choice(w.towns)}: {' '.join(sentences)}\n@highlight\nThis was in the news"
    item = {"passage": passage, "query": f"{query}.", "entities": sorted(names), "answers": [answer]}
    return ("told", passage, query), item


def sciq(rng: random.Random, split: Split) -> FactAndItem:
    """Where someone keeps something, told in the passage, alone or among three more."""
    w = world()
    names = rng.sample(list(w.guests), 4)
    things = rng.sample(list(w.things), 4)
    rooms = rng.sample(w.rooms, 4)
    target = rng.randrange(4)
    alone = rng.random() < 0.5  # the others keep nothing
    sentences = [
        f"{n} {rng.choice(w.habits[rng.choice(list(w.habits))])}."
        if alone and i != target
        else f"{n} keeps the {t} in the {r}."
        for i, (n, t, r) in enumerate(zip(names, things, rooms, strict=True))
    ]
    wrong = [f"in the {room}" for i, room in enumerate(rooms) if i != target]
    item = {
        "support": " ".join(sentences),
        "question": f"Where does {names[target]} keep the {things[target]}?",
        "correct_answer": f"in the {rooms[target]}",
    }
    item |= {f"distractor{i}": distractor for i, distractor in enumerate(wrong, 1)}
    return ("told", item["support"], item["question"]), item


def winogrande(rng: random.Random, split: Split) -> FactAndItem:
    """Which of two is meant, told by what is said of it or by what it is made of."""
    w = world()
    referent = rng.randrange(2)
    subject = rng.choice(["thing", "person", "behaviour"])
    if subject == "behaviour":
        thing, _, facts = draw_thing(rng, split)
        kind = rng.choice(list(MISHAPS))
        (unlike,) = w.unlike(rng, split, kind, facts[kind], 1)
        first, second = (thing, unlike) if referent == 0 else (unlike, thing)
        sentence = f"The {first} and the {second} {MISHAPS[kind]}, and only the _ {PHRASES[facts[kind]][1]}."
        fact: tuple[str, ...] = ("behaves", kind, thing)
    else:
        first, second = rng.sample(list(w.things if subject == "thing" else w.guests), 2)
        template, *clauses = rng.choice(SUBJECTS[subject])
        sentence = f"{template.format(first, second)} {clauses[referent]}."
        fact = ("meant", first, second)
    option1, option2, answer = either(rng, (first, second)[referent], (second, first)[referent])
    return fact, {"sentence": sentence, "option1": option1, "option2": option2, "answer": str(answer + 1)}
