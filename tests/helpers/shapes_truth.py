"""Scenes of the data set `shapes` as the truth that importers are compared with, and outlines of their segments."""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image
from scipy import ndimage

from deeplab2_kmax.converters.shapes import generate_shapes
from deeplab2_kmax.datasets import load_dataset

DESCRIPTOR = load_dataset("shapes")
DIVISOR = DESCRIPTOR.label_divisor
CLASSES = {c.id: c for c in DESCRIPTOR.classes}
STUFF = [c.name for c in DESCRIPTOR.classes if not c.is_thing]


@dataclasses.dataclass(frozen=True)
class Segment:
    """One segment of a scene: a thing, a crowd (a thing class with instance 0), or a stuff class."""

    class_name: str
    is_thing: bool
    is_crowd: bool
    mask: np.ndarray


@dataclasses.dataclass(frozen=True)
class Scene:
    """A scene; `label` holds panoptic ids, class id * 256 + instance id, and 0 for void."""

    name: str
    image: np.ndarray
    label: np.ndarray

    @property
    def segments(self) -> list[Segment]:
        """Stuff, then crowds, then things: an order in which all can be painted on top of each other."""
        found = []
        for panoptic_id in np.unique(self.label):
            class_id, instance = divmod(int(panoptic_id), DIVISOR)
            if class_id:
                kind = CLASSES[class_id]
                crowd = kind.is_thing and not instance
                found.append(Segment(kind.name, kind.is_thing, crowd, self.label == panoptic_id))
        return sorted(found, key=lambda s: (s.is_thing, not s.is_crowd))

    def save(self, folder, ending=".png"):
        """Writes the picture, without loss, as `<name><ending>`."""
        Image.fromarray(self.image).save(folder / (self.name + ending))


def scenes(count=20, size=65, seed=7) -> list[Scene]:
    """The first scenes of a seed; of different shapes, so that width and height cannot be taken for each other."""
    found = []
    for index in range(count):
        image, label = generate_shapes(seed, index, size)
        rows = size - index % 9
        found.append(Scene(f"scene_{index:02d}", image[:rows].copy(), label[:rows].copy()))
    return found


def outlines(mask) -> tuple[list[list[float]], list[list[float]]]:
    """The borders of a mask along the edges of its pixels: (outlines of its parts, those of their holes).

    Each is x, y, x, y, ... of its corners in pixels; (0, 0) is the outer corner of the first pixel.
    """
    outer, holes = [], []
    parts, count = ndimage.label(mask)
    for number in range(1, count + 1):
        for loop in _loops(parts == number):
            area = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(loop, loop[1:] + loop[:1]))
            (outer if area > 0 else holes).append([float(c) for corner in loop for c in corner])
    return outer, holes


def _loops(mask):
    """The closed borders of a mask, with the mask on the right-hand side as one walks."""
    padded = np.pad(mask, 1)
    steps: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for y, x in zip(*np.nonzero(mask)):
        sides = {
            (0, -1): ((x, y), (x + 1, y)),
            (1, 0): ((x + 1, y), (x + 1, y + 1)),
            (0, 1): ((x + 1, y + 1), (x, y + 1)),
            (-1, 0): ((x, y + 1), (x, y)),
        }
        for (dx, dy), (start, end) in sides.items():
            if not padded[y + 1 + dy, x + 1 + dx]:
                steps.setdefault((int(start[0]), int(start[1])), []).append((int(end[0]), int(end[1])))
    loops = []
    while steps:
        start = next(iter(steps))
        loop, at, before = [], start, (0, 0)
        while True:
            ends = steps[at]
            # Where two pixels touch at a corner, turning right stays with the pixel that one comes from.
            right = (-before[1], before[0])
            end = next((e for e in ends if (e[0] - at[0], e[1] - at[1]) == right), ends[0])
            ends.remove(end)
            if not ends:
                del steps[at]
            direction = (end[0] - at[0], end[1] - at[1])
            if direction != before:
                loop.append(at)
            at, before = end, direction
            if at == start:
                break
        loops.append(loop)
    return loops
