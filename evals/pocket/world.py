"""What is true in the pocket world (world.yaml), who lives in it, and which facts are kept for the tests."""

from __future__ import annotations

import functools
import hashlib
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

Split = Literal["train", "test"]

WORLD_FILE = Path(__file__).with_name("world.yaml")
HELD_OUT = 4  # one fact in so many is never stated in training text
RARITY = 1.0  # training text names the n-th thing or resident n**-RARITY times as often as the first
TRAITS = ("job", "town", "animal", "dish", "pastime")


@dataclass(frozen=True)
class Resident:
    """Someone of whom lasting facts are known. job: the material that the person works."""

    pronoun: str
    job: str
    town: str
    animal: str
    dish: str
    pastime: str


@dataclass(frozen=True)
class World:
    """The facts of world.yaml, turned so that they can be drawn from."""

    materials: dict[str, dict[str, Any]]
    things: dict[str, str]  # thing -> its material
    residents: dict[str, Resident]
    guests: dict[str, str]  # name -> pronoun
    towns: list[str]
    animals: list[str]
    dishes: list[str]
    pastimes: list[str]
    rooms: list[str]
    habits: dict[str, list[str]]
    causes: list[list[str]]

    @property
    def people(self) -> dict[str, str]:
        """Everyone's pronoun."""
        return {**{name: resident.pronoun for name, resident in self.residents.items()}, **self.guests}

    def thing(self, rng: random.Random, split: Split) -> str:
        """A thing; for training text rarely most of them, for tests any alike."""
        return _sample(tuple(self.things), rng, split)

    def resident(self, rng: random.Random, split: Split) -> str:
        """The same for a resident's name."""
        return _sample(tuple(self.residents), rng, split)

    def alternatives(self, rng: random.Random, kind: str, right: str, count: int) -> list[str]:
        """`count` other values that the materials have for `kind`, without repeats."""
        values = sorted({str(facts[kind]) for facts in self.materials.values()} - {right})
        return rng.sample(values, count)

    def unlike(self, rng: random.Random, split: Split, kind: str, right: str, count: int) -> list[str]:
        """`count` things whose material has another value for `kind`. In training text only things whose own value is
        told there: that a thing is unlike another would give away one that is held out.
        """
        candidates = [thing for thing, material in self.things.items() if self.materials[material][kind] != right]
        return rng.sample([t for t in candidates if split == "test" or not held_out("behaves", kind, t)], count)


def _sample(names: tuple[str, ...], rng: random.Random, split: Split) -> str:
    if split == "test":
        return rng.choice(names)
    (name,) = rng.choices(*_ranked(names))
    return name


@functools.cache
def _ranked(names: tuple[str, ...]) -> tuple[list[str], list[float]]:
    shuffled = random.Random("ranks").sample(names, len(names))
    return shuffled, [rank**-RARITY for rank in range(1, len(names) + 1)]


@functools.cache
def world() -> World:
    """The one pocket world; the residents' facts are drawn once, from a fixed seed."""
    facts = yaml.safe_load(WORLD_FILE.read_text(encoding="utf-8"))
    rng = random.Random("the pocket world")
    values = {"job": list(facts["materials"]), **{trait: facts[f"{trait}s"] for trait in ("town", "animal", "pastime")}}
    values["dish"] = facts["dishes"]
    residents = {
        name: Resident(pronoun, **{trait: rng.choice(values[trait]) for trait in TRAITS})
        for pronoun, names in facts.pop("residents").items()
        for name in names
    }
    guests = {name: pronoun for pronoun, names in facts.pop("guests").items() for name in names}
    things = {thing: material for material, properties in facts["materials"].items() for thing in properties["things"]}
    return World(things=things, residents=residents, guests=guests, **facts)


def held_out(*fact: str) -> bool:
    """Whether a fact is kept for the tests: the same answer on every machine, one in HELD_OUT."""
    return hashlib.blake2b(" ".join(fact).encode(), digest_size=2).digest()[0] % HELD_OUT == 0
