"""Pathfinder (Linsley et al. 2018, as in Long Range Arena): do the two marked dots lie on one dashed curve?

Every image has two long curves and some short ones. In both classes a dot stands on the first end of one long curve,
the other on the last end of the same (1) or of the other one (0), so that nothing but following the curve tells.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import maximum_filter

TRIES, COLLISION = 3, 1.8  # of a dash, and the overlap of masks from which it is another's
SHORT_TRIES = 5  # of a short curve
FULL = 0.01  # share of free pixels below which no short curve is begun
RIGHT_ANGLE = math.pi / 2


@dataclass(frozen=True)
class Settings:
    """How a size's images are drawn; lengths in pixels. contour, distractor: dashes of a long and a short curve.
    continuity: how little a curve bends. margins: the gap's half, drawn for each image. scale: of the finer drawing.
    """

    size: int
    padding: int = 1
    seed_distance: int = 7
    marker_radius: float = 1.5
    contour: int = 14
    distractor: int = 4
    distractors: int = 5
    continuity: float = 1.0
    dash: int = 2
    thickness: float = 0.5
    margins: tuple[int, ...] = (1,)
    contrast: float = 1.0
    scale: int = 2


SIZES = {  # the hard difficulty, which is the one that is benchmarked
    32: Settings(32),
    64: Settings(64, 1, 12, 2.5, 14, 4, 4, 1.8, 5, 1.0, (1,), 0.8),
    128: Settings(128, 1, 20, 3.0, 14, 4, 7, 1.8, 5, 1.5, (2, 3), 0.9),
    256: Settings(256, 22, 27, 5.0, 14, 4, 6, 1.8, 5, 2.0, (3,), 1.0),
}


class Stuck(Exception):
    """A long curve has no place to go; the image is begun anew."""


def draw(rng: np.random.Generator, settings: Settings) -> tuple[np.ndarray, int]:
    """One image [size, size], uint8, and whether its dots are on one curve."""
    while True:
        try:
            return _draw(rng, settings)
        except Stuck:
            continue


def _draw(rng: np.random.Generator, settings: Settings) -> tuple[np.ndarray, int]:
    canvas = _Canvas(rng, settings)
    first = canvas.begin(canvas.somewhere(2 * settings.seed_distance))
    angle = rng.uniform(0, 2 * math.pi)
    offset = settings.seed_distance * np.array([math.sin(angle), math.cos(angle)])
    second = canvas.begin(np.rint(first.start + offset).astype(int))
    for _ in range(settings.contour - 1):
        for curve in (first, second):
            canvas.extend(curve)
    for curve in (first, second):
        canvas.close(curve)
    for _ in range(settings.distractors):
        if (canvas.mask < 0.7).mean() < FULL:
            break
        canvas.short()
    label = int(rng.random() < 0.5)
    dotted, rival = (first, second) if rng.random() < 0.5 else (second, first)
    canvas.dot(dotted.start)
    canvas.dot((dotted if label else rival).end)
    return np.rint(255 * canvas.image).astype(np.uint8), label


@dataclass
class _Curve:
    """start: where the first dash begins; end: the last one's tip, both [row, column]. pivot: where the next dash's gap
    begins. pending: the last dash, whose mask is put once the next one is there, so that the two may be close.
    """

    start: np.ndarray
    end: np.ndarray
    pivot: np.ndarray
    direction: float
    pending: tuple[tuple[slice, slice], np.ndarray]


class _Canvas:
    """An image in the making. mask: how much of a pixel and of those around it is taken, 0 to 1."""

    def __init__(self, rng: np.random.Generator, settings: Settings) -> None:
        self.rng, self.settings = rng, settings
        self.margin = int(rng.choice(settings.margins))
        self.image = np.zeros((settings.size, settings.size))
        self.mask = np.ones_like(self.image)
        inner = slice(settings.padding, settings.size - settings.padding)
        self.mask[inner, inner] = 0

    def somewhere(self, border: int) -> np.ndarray:
        """A free pixel [row, column] at that distance from the border."""
        free = self.mask <= 0.3
        if border:
            free[:border], free[-border:], free[:, :border], free[:, -border:] = False, False, False, False
        places = np.argwhere(free)
        if not len(places):
            raise Stuck
        pixel: np.ndarray = places[self.rng.integers(len(places))]
        return pixel

    def begin(self, start: np.ndarray) -> _Curve:
        """A curve's first dash, in any direction, beginning there."""
        direction = math.radians(self.rng.integers(360))
        along = np.array([math.sin(direction), math.cos(direction)])
        tip = np.rint(start + self.settings.dash * along).astype(int)
        placed = self._put(tip, direction) if ((tip >= 0) & (tip < self.settings.size)).all() else None
        if placed is None:
            raise Stuck
        return _Curve(start, tip, tip + self.margin * along, direction, placed)

    def extend(self, curve: _Curve) -> None:
        """One more dash: its tip on a circle about the pivot, likelier where the curve bends less and space is free."""
        offsets, angles = _circle(self.settings.dash + self.margin)
        tips = np.rint(curve.pivot).astype(int) + offsets
        inside = ((tips >= 0) & (tips < self.settings.size)).all(1)
        bend = np.abs((angles - curve.direction + math.pi) % (2 * math.pi) - math.pi)
        likely = np.cos(np.minimum(self.settings.continuity * bend, RIGHT_ANGLE)) ** 2
        neighbours = np.clip(
            tips[:, None] + _around(self.margin), 0, self.settings.size - 1
        )  # the border is taken as a whole
        likely *= inside * (1 - self.mask[neighbours[..., 0], neighbours[..., 1]].max(1))
        if likely.sum() < 1e-9:
            raise Stuck
        for _ in range(TRIES):
            index = self.rng.choice(len(tips), p=likely / likely.sum())
            placed = self._put(tips[index], float(angles[index]))
            if placed is not None:
                self.close(curve)
                along = np.array([math.sin(angles[index]), math.cos(angles[index])])
                curve.end, curve.direction, curve.pending = tips[index], float(angles[index]), placed
                curve.pivot = curve.pivot + (self.settings.dash + 2 * self.margin) * along
                return
        raise Stuck

    def close(self, curve: _Curve) -> None:
        """Let the last dash take its place."""
        at, mask = curve.pending
        self.mask[at] = np.maximum(self.mask[at], mask)

    def short(self) -> None:
        """A short curve; none, if it cannot be drawn to its end."""
        for _ in range(SHORT_TRIES):
            image, mask = self.image.copy(), self.mask.copy()
            try:
                curve = self.begin(self.somewhere(0))
                for _ in range(self.settings.distractor - 1):
                    self.extend(curve)
                return self.close(curve)
            except Stuck:
                self.image, self.mask = image, mask

    def dot(self, at: np.ndarray) -> None:
        """A disc, bright."""
        rows, columns = np.ogrid[: self.settings.size, : self.settings.size]
        disc = (rows - at[0]) ** 2 + (columns - at[1]) ** 2 <= self.settings.marker_radius**2
        self.image[disc] = 1

    def _put(self, tip: np.ndarray, direction: float) -> tuple[tuple[slice, slice], np.ndarray] | None:
        """Draw the dash that ends there; where, and its mask. None where another is in its way."""
        image, mask = _dash(self.settings, self.margin, round(math.degrees(direction)) % 360)
        half = image.shape[0] // 2
        low, high = np.maximum(tip - half, 0), np.minimum(tip + half + 1, self.settings.size)
        if (high <= low).any():
            return None
        at = slice(low[0], high[0]), slice(low[1], high[1])
        window = tuple(slice(*(bound - tip[axis] + half for bound in (low[axis], high[axis]))) for axis in (0, 1))
        if (self.mask[at] + mask[window]).max() >= COLLISION:
            return None
        self.image[at] = np.maximum(self.image[at], image[window])
        return at, mask[window]


@functools.lru_cache(maxsize=4096)
def _dash(settings: Settings, margin: int, degrees: int) -> tuple[np.ndarray, np.ndarray]:
    """A dash that ends in the middle of a patch and runs in that direction, and its surroundings, 0 to 1."""
    half = settings.dash + math.ceil(settings.thickness) + margin
    wide, scale = 2 * half + 1, settings.scale
    fine = Image.new("L", (wide * scale, wide * scale))
    middle = (half + 0.5) * scale
    back = settings.dash * scale
    towards = (middle - back * math.cos(math.radians(degrees)), middle - back * math.sin(math.radians(degrees)))
    ImageDraw.Draw(fine).line([(middle, middle), towards], fill=255, width=max(1, round(settings.thickness * scale)))
    around = Image.fromarray(maximum_filter(np.asarray(fine), footprint=_disc(margin * scale)))
    return _reduced(fine, wide) * settings.contrast, _reduced(around, wide)


def _reduced(fine: Image.Image, wide: int) -> np.ndarray:
    small = np.asarray(fine.resize((wide, wide), Image.Resampling.LANCZOS), dtype=float)
    normalised: np.ndarray = small / max(1.0, small.max())
    return normalised


@functools.cache
def _disc(radius: float) -> np.ndarray:
    reach = math.floor(radius)
    rows, columns = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    disc: np.ndarray = rows**2 + columns**2 <= radius**2
    return disc


@functools.cache
def _around(radius: int) -> np.ndarray:
    """The pixels [N, 2] of a disc about the origin."""
    offsets: np.ndarray = np.argwhere(_disc(radius)) - radius
    return offsets


@functools.cache
def _circle(radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [N, 2] on a circle about the origin, and their directions [N], radians from the columns' axis."""
    rows, columns = np.mgrid[-radius - 1 : radius + 2, -radius - 1 : radius + 2]
    on = np.abs(np.hypot(rows, columns) - radius) < 0.5
    return np.stack([rows[on], columns[on]], 1), np.arctan2(rows[on], columns[on])
