"""What families, mixers and other lines are called and how they look, as configs/families.yaml and mixers.yaml say."""

from __future__ import annotations

from typing import NamedTuple

import configs

OTHERS = {"rule of thumb": {"colour": "#000000", "marker": "*"}}
UNKNOWN = {"colour": "#000000", "marker": "+"}


class Look(NamedTuple):
    """colour: #RRGGBB. marker: matplotlib's."""

    colour: str
    marker: str


def label(family: str) -> str:
    """A family's name in texts, tables and legends; of one that configs do not know, the same."""
    return str(configs.read("families").get(family, {"label": family})["label"])


def mixer(name: str, otherwise: str) -> str:
    """A mixer's name in texts, tables and legends; of one that configs do not know, `otherwise`."""
    return str(configs.read("mixers").get(name, {"label": otherwise})["label"])


def look(name: str) -> Look:
    """Of a family, a mixer, or another line; black crosses for what nobody knows."""
    entry = {**configs.read("mixers"), **configs.read("families"), **OTHERS}.get(name, UNKNOWN)
    return Look(entry["colour"], entry["marker"])
