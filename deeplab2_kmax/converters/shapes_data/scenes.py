"""Draws the scenes of the data set `shapes`: things of four shapes on stuff of four textures, with void and crowds.

A scene depends on (seed, index, size) alone. Lengths are fractions of the image side, so another size gives the same
kind of scene at another resolution. The order of the random draws decides what each seed gives, so it must not change.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence

import numpy as np

from deeplab2_kmax.converters.shapes_data.outlines import Stamp, stamp_thing
from deeplab2_kmax.converters.shapes_data.textures import paint_texture
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.errors import DataError

MIN_SIZE = 33
_MIN_THINGS, _MAX_THINGS = 2, 6
_THING_RADIUS = (0.11, 0.20)
_CROWD_RADIUS = (0.045, 0.06)
_CROWD_SHARE = 0.25  # of images
_VOID_SHARE = 0.75
# At least this share of the pixels of every thing stays visible, so that its shape can be recognized.
_MIN_VISIBLE = 0.6
_PLACEMENT_TRIES = 60
# The preferred hue of each thing class, and the share of things that have it: color hints at the class, but only the
# shape tells it.
_HUES = {"circle": 0.99, "square": 0.68, "triangle": 0.14, "star": 0.83}
_PREFERRED_HUE_SHARE = 0.6


def generate_shapes(seed: int, index: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws one scene: 2 to 6 things that may cover parts of each other, on 1 to 4 textured stuff regions.

    Args:
        seed: any number from 0; each gives another data set.
        index: which image of the data set, from 0.
        size: height and width in pixels, at least 33.

    Returns:
        image: uint8 RGB [size, size, 3].
        label: int32 [size, size] of panoptic ids `class id * 256 + instance id` with the classes of the built-in data
            set `shapes`; 0 is void; a crowd region has its thing class and instance id 0.

    Raises:
        DataError: the size is too small for shapes to be recognized.
    """
    require_size(size)
    rng = np.random.default_rng([seed, index])
    scene = _Scene(rng, size)
    scene.paint_stuff()
    if rng.random() < _VOID_SHARE:
        scene.paint_void()
    if rng.random() < _CROWD_SHARE:
        scene.paint_crowd()
    scene.paint_things(int(rng.integers(_MIN_THINGS, _MAX_THINGS + 1)))
    return np.round(scene.image * 255).astype(np.uint8), scene.label


def require_size(size: int) -> None:
    """Raises DataError if images of this height and width are too small for shapes to be recognized."""
    if size < MIN_SIZE:
        raise DataError(f"shapes: expected a size of at least {MIN_SIZE} pixels, got {size}")


class _Scene:
    """The image (float32 [size, size, 3], 0..1) and the label of a scene while it is drawn."""

    def __init__(self, rng: np.random.Generator, size: int):
        descriptor = load_dataset("shapes")
        self._ids = {c.name: c.id * descriptor.label_divisor for c in descriptor.classes}
        self._void_id = descriptor.void_id
        self._things = [c.name for c in descriptor.classes if c.is_thing]
        self._stuff = [c.name for c in descriptor.classes if not c.is_thing]
        self._rng = rng
        self._size = size
        axis = (np.arange(size, dtype=np.float32) + 0.5) / size
        self._y, self._x = axis[:, None], axis[None, :]
        self.image = np.zeros((size, size, 3), np.float32)
        self.label = np.full((size, size), self._void_id, np.int32)

    def paint_stuff(self) -> None:
        """Draws one to three bands of stuff, mostly with a sky on top, and sometimes a patch of another stuff."""
        rng = self._rng
        grounds = [str(kind) for kind in rng.permutation([kind for kind in self._stuff if kind != "sky"])]
        kinds = grounds[: rng.integers(1, 3)]
        if len(kinds) == 1 or rng.random() < 0.7:
            kinds.insert(0, "sky")
        edges = np.arange(1, len(kinds)) / len(kinds) + rng.uniform(-0.12, 0.12, len(kinds) - 1)
        band = np.zeros(self.label.shape, np.int32)
        for edge in edges:
            slope = rng.uniform(-0.25, 0.25)
            band += self._y > edge + slope * (self._x - 0.5) + self._ripple(self._x)
        for number, kind in enumerate(kinds):
            self._fill_stuff(band == number, kind)
        if len(kinds) < 3 and rng.random() < 0.5:
            center = (rng.uniform(0.65, 0.95), rng.uniform(0.1, 0.9))
            self._fill_stuff(self._blob(center, rng.uniform(0.16, 0.26)), grounds[-1])

    def paint_void(self) -> None:
        """Draws one or two patches of grey noise, which belong to no class."""
        for _ in range(self._rng.integers(1, 3)):
            mask = self._blob(self._rng.uniform(0.05, 0.95, 2), self._rng.uniform(0.09, 0.16))
            self.image[mask] = self._rng.uniform(0.1, 0.8, (np.count_nonzero(mask), 1))
            self.label[mask] = self._void_id

    def paint_crowd(self) -> None:
        """Draws a crowd: many small things of one class, labelled as one region."""
        rng = self._rng
        kind = str(rng.choice(self._things))
        center = rng.uniform(0.2, 0.8, 2)
        color = self._thing_color(kind)
        for _ in range(rng.integers(9, 14)):
            place = np.clip(center + rng.normal(0, 0.07, 2), 0.05, 0.95)
            stamp = self._stamp(kind, place, rng.uniform(*_CROWD_RADIUS))
            self._draw(stamp, np.clip(color * rng.uniform(0.8, 1.1), 0, 1), self._ids[kind])

    def paint_things(self, count: int) -> None:
        """Draws up to `count` things one after the other, none where it would cover too much of an earlier one."""
        rng = self._rng
        instances = dict.fromkeys(self._things, 0)
        areas: dict[int, int] = {}
        for _ in range(_PLACEMENT_TRIES):
            if len(areas) == count:
                return
            kind = str(rng.choice(self._things))
            radius = rng.uniform(*_THING_RADIUS)
            stamp = self._stamp(kind, rng.uniform(0.7 * radius, 1 - 0.7 * radius, 2), radius)
            if not self._leaves_others_visible(stamp, areas):
                continue
            instances[kind] += 1
            panoptic_id = self._ids[kind] + instances[kind]
            areas[panoptic_id] = int(np.count_nonzero(stamp.inside))
            self._draw(stamp, self._thing_color(kind), panoptic_id)

    def _leaves_others_visible(self, stamp: Stamp, areas: dict[int, int]) -> bool:
        covered = self.label[stamp.window][stamp.inside]
        for panoptic_id, area in areas.items():
            visible = np.count_nonzero(self.label == panoptic_id) - np.count_nonzero(covered == panoptic_id)
            if visible < _MIN_VISIBLE * area:
                return False
        return True

    def _stamp(self, kind: str, center: np.ndarray, radius: float) -> Stamp:
        rotation = self._rng.uniform(0, 2 * math.pi)
        return stamp_thing(kind, np.asarray(center) * self._size, radius * self._size, rotation, self._size)

    def _draw(self, stamp: Stamp, color: np.ndarray, panoptic_id: int) -> None:
        """Draws a thing in its color, lightly shaded, with a dark rim and a smooth edge; in the label, a hard edge."""
        rim_width = max(1.0, 0.016 * self._size)
        rim = np.clip(stamp.distance + rim_width + 0.5, 0, 1)[..., None]
        surface = np.clip(color * (1 - 0.18 * stamp.shade[..., None]), 0, 1) * (1 - 0.62 * rim)
        cover = np.clip(0.5 - stamp.distance, 0, 1)[..., None]
        below = self.image[stamp.window]
        self.image[stamp.window] = below + cover * (surface - below)
        self.label[stamp.window][stamp.inside] = panoptic_id

    def _thing_color(self, kind: str) -> np.ndarray:
        """A vivid color for a thing of this class: float32 RGB, 0..1."""
        rng = self._rng
        hue = rng.random()
        if rng.random() < _PREFERRED_HUE_SHARE:
            hue = (_HUES[kind] + rng.normal(0, 0.03)) % 1
        return np.asarray(colorsys.hsv_to_rgb(hue, rng.uniform(0.7, 0.95), rng.uniform(0.8, 1.0)), np.float32)

    def _fill_stuff(self, mask: np.ndarray, kind: str) -> None:
        np.copyto(self.image, paint_texture(kind, self._rng, self._size), where=mask[..., None])
        self.label[mask] = self._ids[kind]

    def _blob(self, center: Sequence[float] | np.ndarray, radius: float) -> np.ndarray:
        """A round patch with an irregular border: bool [size, size]."""
        y, x = self._y - center[0], self._x - center[1]
        steps = 256  # Points of the border: sines for every pixel would take longer than the rest of the scene.
        border = radius * (1 + 6 * self._ripple(np.arange(steps, dtype=np.float32) / steps))
        direction = (np.arctan2(y, x) * (steps / (2 * math.pi))).astype(np.int32) % steps
        return np.hypot(y, x) < border[direction]

    def _ripple(self, position: np.ndarray) -> np.ndarray:
        """A wavy line of period 1, with values of about -0.06 to 0.06."""
        line = np.zeros_like(position)
        for frequency in (1, 2, 3, 5):
            phase = self._rng.uniform(0, 1)
            line += 0.05 / frequency * np.sin(2 * math.pi * (frequency * position + phase))
        return line
