"""Items for the twelve tasks, with exactly the fields of the hub's data sets, so that lm-eval's own tasks run on them.

Each maker draws an item and the fact that answers it. A test item's fact is one that is held out. If it follows from
others (this thing floats, since it is of wood and wood floats), training text states it nowhere, in no wording; if
it is a thing's material or something known of a resident, not in the wording of the item. Where a passage tells it,
the fact is the whole passage with its question: were it only the answer (this thing is in that room), a model would
learn which answers never occur, and score below chance.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evals.pocket.world import Split, held, world
from evals.zeroshot import tasks as catalogue

Item = dict[str, Any]
Made = tuple[tuple[str, ...], Item]  # the fact that is asked for, and the item

TASKS = [name for name, entry in catalogue.catalogue().items() if entry.get("twelve")]
ITEMS = 400  # a task; 300 and more make a standard error below 3 %
LETTERS = ["A", "B", "C", "D"]
PHRASES = {  # how a material's behaviour is said of a thing, and what has happened afterwards
    "floats": ("floats on water", "floated"),
    "sinks": ("sinks in water", "sank"),
    "breaks": ("breaks when it falls", "broke"),
    "stays whole": ("stays whole when it falls", "stayed whole"),
    "burns": ("burns in the fire", "burned"),
    "glows": ("glows in the fire", "glowed"),
    "cracks": ("cracks in the fire", "cracked"),
    "hardens": ("hardens in the fire", "hardened"),
    "blackens": ("blackens in the fire", "blackened"),
    "melts": ("melts in the fire", "melted"),
}
MISHAPS = {"water": "fell into the pond", "fall": "fell from the roof", "fire": "fell into the fire"}
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


def item(task: str, rng: random.Random, split: Split) -> Item:
    """An item of a task whose fact is in the split."""
    while True:
        fact, made = MAKERS[task](rng, split)
        if held(*fact) == (split == "test"):
            return made


def write(folder: Path, items: int = ITEMS, seed: int = 0) -> Path:
    """Every task's test items as `<task>/<split>.jsonl` below `folder`, no two of a task alike but for their order."""
    for task in TASKS:
        rng = random.Random(f"{seed} {task} test")
        lines: dict[tuple[str, ...], str] = {}
        while len(lines) < items:
            made = item(task, rng, "test")
            words = re.findall(r'"([^"]{2,})"', json.dumps(made))
            lines.setdefault((*prompt(task, made), *sorted(words)), json.dumps(made))
        (folder / task).mkdir(parents=True, exist_ok=True)
        (folder / task / f"{catalogue.entry(task)['split']}.jsonl").write_text("\n".join(lines.values()) + "\n")
    return folder


def prompt(task: str, made: Item) -> tuple[str, str]:
    """What lm-eval sends for the item, and its right answer (a test compares)."""
    match task:
        case "arc_easy" | "arc_challenge":
            return f"Question: {made['question']}\nAnswer:", _chosen(made)
        case "openbookqa":
            return made["question_stem"], _chosen(made)
        case "boolq":
            return f"{made['passage']}\nQuestion: {made['question']}?\nAnswer:", ("no", "yes")[made["label"]]
        case "copa":
            joint = {"cause": "because", "effect": "therefore"}[made["question"]]
            choice = (made["choice1"], made["choice2"])[made["label"]]
            return f"{made['premise'][:-1]} {joint}", f" {choice[0].lower()}{choice[1:]}"
        case "headqa_en":
            return f"Question: {made['qtext']}\nAnswer:", made["answers"][made["ra"] - 1]["atext"]
        case "hellaswag":
            before = f"{made['activity_label']}: {made['ctx_a']} {made['ctx_b'].capitalize()}"
            return before, made["endings"][int(made["label"])]
        case "lambada_openai":
            before, last = made["text"].rsplit(" ", 1)
            return before, f" {last}"
        case "piqa":
            return f"Question: {made['goal']}\nAnswer:", (made["sol1"], made["sol2"])[made["label"]]
        case "record":
            passage, highlight = made["passage"].split("\n@highlight\n")
            answer = made["query"].replace("@placeholder", made["answers"][0])
            return f"{passage}\n\n  - {highlight}.\n", f"  - {answer}"
        case "sciq":
            return f"{made['support']}\nQuestion: {made['question']}\nAnswer:", made["correct_answer"]
        case "winogrande":
            before, after = made["sentence"].split("_")
            return before + made[f"option{made['answer']}"], after.strip()
    raise KeyError(task)


def _chosen(made: Item) -> str:
    return str(made["choices"]["text"][made["choices"]["label"].index(made["answerKey"])])


def _lettered(rng: random.Random, right: str, wrong: list[str]) -> Item:
    options = [right, *wrong]
    rng.shuffle(options)
    return {"choices": {"text": options, "label": LETTERS}, "answerKey": LETTERS[options.index(right)]}


def _either(rng: random.Random, right: str, wrong: str) -> tuple[str, str, int]:
    """The two in either order, and the index of the right one."""
    return (right, wrong, 0) if rng.random() < 0.5 else (wrong, right, 1)


def _thing(rng: random.Random, split: Split) -> tuple[str, str, dict[str, Any]]:
    thing = world().thing(rng, split)
    material = world().things[thing]
    return thing, material, world().materials[material]


def arc_easy(rng: random.Random, split: Split) -> Made:
    """What a thing is made of, asked in both directions."""
    thing, material, _ = _thing(rng, split)
    if rng.random() < 0.5:
        others = rng.sample([t for t, m in world().things.items() if m != material], 3)
        asked = {
            "question": f"Which of these is made of {material}?",
            **_lettered(rng, f"the {thing}", [f"the {o}" for o in others]),
        }
        return ("which is made of", thing), {"id": thing, **asked}
    others = rng.sample([m for m in world().materials if m != material], 3)
    asked = {"question": f"What is the {thing} made of?", **_lettered(rng, material, others)}
    return ("what is it made of", thing), {"id": thing, **asked}


def arc_challenge(rng: random.Random, split: Split) -> Made:
    """What a thing does in water, when it falls or in the fire, by way of its material."""
    thing, _, facts = _thing(rng, split)
    kind = rng.choice(list(MISHAPS))
    others = world().unlike(rng, kind, facts[kind], 3)
    question = f"Which of these {PHRASES[facts[kind]][0]}?"
    chosen = _lettered(rng, f"the {thing}", [f"the {o}" for o in others])
    return ("behaves", kind, thing), {"id": thing, "question": question, **chosen}


def openbookqa(rng: random.Random, split: Split) -> Made:
    """Who makes a thing, where and with what; what the fire does to it."""
    thing, _, facts = _thing(rng, split)
    stems = {
        "worker": f"The {thing} was made by the",
        "place": f"The {thing} was made in the",
        "tool": f"The {thing} was made with the",
        "fire": f"When the {thing} lies in the fire, it",
    }
    kind = rng.choice(list(stems))
    chosen = _lettered(rng, facts[kind], world().others(rng, kind, facts[kind], 3))
    fact = ("behaves", kind, thing) if kind == "fire" else ("made", thing)
    return fact, {"id": thing, "question_stem": stems[kind], **chosen}


def piqa(rng: random.Random, split: Split) -> Made:
    """How a thing is cleaned, mended or made."""
    thing, material, facts = _thing(rng, split)
    other = world().materials[rng.choice([m for m in world().materials if m != material])]
    goals = {
        "cleaning": (f"How do you clean the {thing}?", "Take it and {cleaning}."),
        "place": (f"How do you mend the {thing}?", "Bring it to the {worker} at the {place}."),
        "tool": (f"How do you make a new {thing}?", "Ask the {worker} to use the {tool}."),
    }
    kind = rng.choice(list(goals))
    if other["cleaning"] == facts["cleaning"]:
        return piqa(rng, split)
    goal, answer = goals[kind]
    first, second, label = _either(rng, answer.format(**facts), answer.format(**other))
    return (("cleaned", thing) if kind == "cleaning" else ("made", thing)), {
        "goal": goal,
        "sol1": first,
        "sol2": second,
        "label": label,
    }


def headqa_en(rng: random.Random, split: Split) -> Made:
    """What is known of a resident; where one works and with what follows from the job."""
    w = world()
    name = w.resident(rng, split)
    known = w.residents[name]
    kind = rng.choice(["place", "tool", "town", "animal", "dish", "pastime"])
    if kind in ("place", "tool"):
        right = w.materials[known.job][kind]
        others = w.others(rng, kind, right, 3)
    else:
        right = getattr(known, kind)
        values = {"town": w.towns, "animal": w.animals, "dish": w.dishes, "pastime": w.pastimes}[kind]
        others = rng.sample([value for value in values if value != right], 3)
    question = {
        "place": f"Where does {name} work?",
        "tool": f"What does {name} work with?",
        "town": f"In which town does {name} live?",
        "animal": f"Which animal does {name} keep?",
        "dish": f"What does {name} like to eat?",
        "pastime": f"What does {name} do on Sundays?",
    }[kind]
    article = "the " if kind in ("place", "tool") else ""
    options = [article + right, *(article + other for other in others)]
    rng.shuffle(options)
    answers = [{"aid": i, "atext": option} for i, option in enumerate(options, 1)]
    made = {"qid": name, "qtext": question, "ra": options.index(article + right) + 1, "answers": answers}
    return ("of a resident", "work" if kind in ("place", "tool") else kind, name), made


def boolq(rng: random.Random, split: Split) -> Made:
    """Whether something of a named material or a thing behaves so; whether someone is where another may be."""
    w = world()
    names = rng.sample(list(w.guests), 3)
    rooms = rng.sample(w.rooms, 3)
    where = [f"{name} is in the {room}." for name, room in zip(names, rooms, strict=True)]
    about = rng.choice(["gift", "thing", "room"])
    if about != "room":
        thing, material, _ = _thing(rng, split)
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


def copa(rng: random.Random, split: Split) -> Made:
    """What comes of what: of deeds, and of things that fall."""
    w = world()
    if rng.random() < 0.5:
        thing, _, facts = _thing(rng, split)
        kind = rng.choice(list(MISHAPS))
        right = PHRASES[facts[kind]][1]
        wrong = PHRASES[w.others(rng, kind, facts[kind], 1)[0]][1]
        first, second, label = _either(rng, f"It {right}.", f"It {wrong}.")
        made = {"premise": f"The {thing} {MISHAPS[kind]}.", "question": "effect"}
        return ("behaves", kind, thing), {**made, "choice1": first, "choice2": second, "label": label}
    name = rng.choice(list(w.people))
    pairs = rng.sample(range(len(w.causes)), 2)
    question = rng.choice(["cause", "effect"])
    given = 1 if question == "cause" else 0
    right, wrong = (w.causes[pair][1 - given].format(n=w.people[name].capitalize()) + "." for pair in pairs)
    first, second, label = _either(rng, right, wrong)
    made = {"premise": w.causes[pairs[0]][given].format(n=name) + ".", "question": question}
    return (
        ("came of", w.causes[pairs[0]][0], name),
        {**made, "choice1": first, "choice2": second, "label": label},
    )


def hellaswag(rng: random.Random, split: Split) -> Made:
    """The next step of some work, among steps done already, later ones and other work's."""
    w = world()
    activity = rng.choice(list(w.habits))
    steps = w.habits[activity]
    name = rng.choice(list(w.people))
    done = rng.randint(1, len(steps) - 2)
    other = rng.choice([step for habit, own in w.habits.items() if habit != activity for step in own])
    wrong = [rng.choice(steps[:done]), rng.choice(steps[done + 1 :]), other]
    endings = [f"{step}." for step in (steps[done], *wrong)]
    rng.shuffle(endings)
    before = [f"{name} {steps[0]}.", *(f"Then {w.people[name]} {step}." for step in steps[1:done])]
    made = {
        "activity_label": activity,
        "ctx_a": " ".join(before),
        "ctx_b": f"then {w.people[name]}",
        "endings": endings,
        "label": str(endings.index(f"{steps[done]}.")),
    }
    return ("next step", activity, str(done), name), made


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
        thing, _, facts = _thing(rng, split)
        kind = rng.choice(list(MISHAPS))
        (unlike,) = w.unlike(rng, kind, facts[kind], 1)
        one, other = (thing, unlike) if meant == 0 else (unlike, thing)
        told = f"The {one} and the {other} {MISHAPS[kind]}, and only the _ {PHRASES[facts[kind]][1]}."
        fact: tuple[str, ...] = ("behaves", kind, thing)
    else:
        one, other = rng.sample(list(w.things if subject == "thing" else w.guests), 2)
        template, *clauses = rng.choice(SUBJECTS[subject])
        told = f"{template.format(one, other)} {clauses[meant]}."
        fact = ("meant", one, other)
    option1, option2, answer = _either(rng, (one, other)[meant], (other, one)[meant])
    return fact, {"sentence": told, "option1": option1, "option2": option2, "answer": str(answer + 1)}


MAKERS: dict[str, Callable[[random.Random, Split], Made]] = {
    "arc_easy": arc_easy,
    "arc_challenge": arc_challenge,
    "boolq": boolq,
    "copa": copa,
    "headqa_en": headqa_en,
    "hellaswag": hellaswag,
    "lambada_openai": lambada_openai,
    "openbookqa": openbookqa,
    "piqa": piqa,
    "record": record,
    "sciq": sciq,
    "winogrande": winogrande,
}
