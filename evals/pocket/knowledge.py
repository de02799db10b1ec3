"""Items whose answers training text teaches: what things are, do and need, who works where, what comes of what."""

from __future__ import annotations

import random

from evals.pocket.items import MISHAPS, PHRASES, FactAndItem, draw_thing, either, lettered
from evals.pocket.world import Split, world


def arc_easy(rng: random.Random, split: Split) -> FactAndItem:
    """What a thing is made of, asked in both directions."""
    thing, material, _ = draw_thing(rng, split)
    if rng.random() < 0.5:
        wrong = rng.sample([t for t, m in world().things.items() if m != material], 3)
        fields = {
            "question": f"Which of these is made of {material}?",
            **lettered(rng, f"the {thing}", [f"the {o}" for o in wrong]),
        }
        return ("which is made of", thing), {"id": thing, **fields}
    wrong = rng.sample([m for m in world().materials if m != material], 3)
    fields = {"question": f"What is the {thing} made of?", **lettered(rng, material, wrong)}
    return ("what is it made of", thing), {"id": thing, **fields}


def arc_challenge(rng: random.Random, split: Split) -> FactAndItem:
    """What a thing does in water, when it falls or in the fire, by way of its material."""
    thing, _, facts = draw_thing(rng, split)
    kind = rng.choice(list(MISHAPS))
    wrong = world().unlike(rng, split, kind, facts[kind], 3)
    question = f"Which of these {PHRASES[facts[kind]][0]}?"
    choices = lettered(rng, f"the {thing}", [f"the {o}" for o in wrong])
    return ("behaves", kind, thing), {"id": thing, "question": question, **choices}


def openbookqa(rng: random.Random, split: Split) -> FactAndItem:
    """Who makes a thing, where and with what; what the fire does to it."""
    thing, _, facts = draw_thing(rng, split)
    stems = {
        "worker": f"The {thing} was made by the",
        "place": f"The {thing} was made in the",
        "tool": f"The {thing} was made with the",
        "fire": f"When the {thing} lies in the fire, it",
    }
    kind = rng.choice(list(stems))
    choices = lettered(rng, facts[kind], world().alternatives(rng, kind, facts[kind], 3))
    fact = ("behaves", kind, thing) if kind == "fire" else ("made", thing)
    return fact, {"id": thing, "question_stem": stems[kind], **choices}


def piqa(rng: random.Random, split: Split) -> FactAndItem:
    """How a thing is cleaned, mended or made."""
    thing, material, facts = draw_thing(rng, split)
    wrong_facts = world().materials[rng.choice([m for m in world().materials if m != material])]
    goals = {
        "cleaning": (f"How do you clean the {thing}?", "Take it and {cleaning}."),
        "place": (f"How do you mend the {thing}?", "Bring it to the {worker} at the {place}."),
        "tool": (f"How do you make a new {thing}?", "Ask the {worker} to use the {tool}."),
    }
    kind = rng.choice(list(goals))
    if wrong_facts["cleaning"] == facts["cleaning"]:
        return piqa(rng, split)
    goal, answer = goals[kind]
    first, second, label = either(rng, answer.format(**facts), answer.format(**wrong_facts))
    return (("cleaned", thing) if kind == "cleaning" else ("made", thing)), {
        "goal": goal,
        "sol1": first,
        "sol2": second,
        "label": label,
    }


def headqa_en(rng: random.Random, split: Split) -> FactAndItem:
    """What is known of a resident; where one works and with what follows from the job."""
    w = world()
    name = w.resident(rng, split)
    resident = w.residents[name]
    kind = rng.choice(["place", "tool", "town", "animal", "dish", "pastime"])
    if kind in ("place", "tool"):
        right = w.materials[resident.job][kind]
        wrong = w.alternatives(rng, kind, right, 3)
    else:
        right = getattr(resident, kind)
        values = {"town": w.towns, "animal": w.animals, "dish": w.dishes, "pastime": w.pastimes}[kind]
        wrong = rng.sample([value for value in values if value != right], 3)
    question = {
        "place": f"Where does {name} work?",
        "tool": f"What does {name} work with?",
        "town": f"In which town does {name} live?",
        "animal": f"Which animal does {name} keep?",
        "dish": f"What does {name} like to eat?",
        "pastime": f"What does {name} do on Sundays?",
    }[kind]
    article = "the " if kind in ("place", "tool") else ""
    options = [article + right, *(article + value for value in wrong)]
    rng.shuffle(options)
    answers = [{"aid": i, "atext": option} for i, option in enumerate(options, 1)]
    item = {"qid": name, "qtext": question, "ra": options.index(article + right) + 1, "answers": answers}
    return ("of a resident", "work" if kind in ("place", "tool") else kind, name), item


def copa(rng: random.Random, split: Split) -> FactAndItem:
    """What comes of what: of deeds, and of things that fall."""
    w = world()
    if rng.random() < 0.5:
        thing, _, facts = draw_thing(rng, split)
        kind = rng.choice(list(MISHAPS))
        right = PHRASES[facts[kind]][1]
        wrong = PHRASES[w.alternatives(rng, kind, facts[kind], 1)[0]][1]
        first, second, label = either(rng, f"It {right}.", f"It {wrong}.")
        item = {"premise": f"The {thing} {MISHAPS[kind]}.", "question": "effect"}
        return ("behaves", kind, thing), {**item, "choice1": first, "choice2": second, "label": label}
    name = rng.choice(list(w.people))
    pairs = rng.sample(range(len(w.causes)), 2)
    question = rng.choice(["cause", "effect"])
    premise = 1 if question == "cause" else 0
    right, wrong = (w.causes[pair][1 - premise].format(n=w.people[name].capitalize()) + "." for pair in pairs)
    first, second, label = either(rng, right, wrong)
    item = {"premise": w.causes[pairs[0]][premise].format(n=name) + ".", "question": question}
    return (
        ("came of", w.causes[pairs[0]][0], name),
        {**item, "choice1": first, "choice2": second, "label": label},
    )


def hellaswag(rng: random.Random, split: Split) -> FactAndItem:
    """The next step of some work, among steps done already, later ones and other work's."""
    w = world()
    activity = rng.choice(list(w.habits))
    steps = w.habits[activity]
    name = rng.choice(list(w.people))
    done = rng.randint(1, len(steps) - 2)
    foreign_steps = [step for habit, habit_steps in w.habits.items() if habit != activity for step in habit_steps]
    unrelated = rng.choice(foreign_steps)
    wrong = [rng.choice(steps[:done]), rng.choice(steps[done + 1 :]), unrelated]
    endings = [f"{step}." for step in (steps[done], *wrong)]
    rng.shuffle(endings)
    before = [f"{name} {steps[0]}.", *(f"Then {w.people[name]} {step}." for step in steps[1:done])]
    item = {
        "activity_label": activity,
        "ctx_a": " ".join(before),
        "ctx_b": f"then {w.people[name]}",
        "endings": endings,
        "label": str(endings.index(f"{steps[done]}.")),
    }
    return ("next step", activity, str(done), name), item
