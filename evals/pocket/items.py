"""What an item of the pocket world is, and what its makers share: how things behave, and choices in any order."""

from __future__ import annotations

import random
from typing import Any

from evals.pocket.world import Split, world

Item = dict[str, Any]
FactAndItem = tuple[tuple[str, ...], Item]  # the fact that is asked for, and the item

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


def lettered(rng: random.Random, right: str, wrong: list[str]) -> Item:
    options = [right, *wrong]
    rng.shuffle(options)
    return {"choices": {"text": options, "label": LETTERS}, "answerKey": LETTERS[options.index(right)]}


def either(rng: random.Random, right: str, wrong: str) -> tuple[str, str, int]:
    """The two in either order, and the index of the right one."""
    return (right, wrong, 0) if rng.random() < 0.5 else (wrong, right, 1)


def draw_thing(rng: random.Random, split: Split) -> tuple[str, str, dict[str, Any]]:
    thing = world().thing(rng, split)
    material = world().things[thing]
    return thing, material, world().materials[material]
