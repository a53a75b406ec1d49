"""The pictures of a report: image, truth, prediction, and what is wrong, each small enough for a page of many."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from PIL import Image

from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.evaluation.panoptic_quality import Categories
from deeplab2_kmax.pages.pictures import jpeg_url
from deeplab2_kmax.results.report_data import Judged, LabelledMap
from deeplab2_kmax.results.segment_errors import Kind
from deeplab2_kmax.visualization.borders import border_pixels
from deeplab2_kmax.visualization.captions import draw_captions
from deeplab2_kmax.visualization.overlay import display_scale, overlay

# The longer side of a picture, in pixels; small ones are enlarged until the shorter side comes near the second.
_LONGEST, _SHORTER = 480, 320
# Colors that the color-blind tell apart (Okabe and Ito, 2008); the kind is written on each segment, too.
COLORS = {
    Kind.MISSED: (213, 94, 0),
    Kind.WRONG_CLASS: (204, 121, 167),
    Kind.SPLIT: (86, 180, 233),
    Kind.MERGED: (0, 114, 178),
    Kind.INEXACT: (0, 158, 115),
    Kind.INVENTED: (240, 228, 66),
}
_OPACITY = 0.72
# What segments are drawn on where the image is not known.
_PAPER = 228
# Segments with a smaller share of the picture get no text.
_SMALLEST_NAMED = 0.003


class Panel(NamedTuple):
    """One picture on the page.

    Attributes:
        title: "image", "truth", ...
        url: with the picture inside.
        width: in pixels.
        height: in pixels.
        alt: for those who cannot see it.
    """

    title: str
    url: str
    width: int
    height: int
    alt: str


def panels(judged: Judged, categories: Categories, picture: np.ndarray | None) -> list[Panel]:
    """The pictures of one image.

    Args:
        judged: the image.
        categories: the classes.
        picture: the image itself, uint8 RGB [h, w, 3] of any size; None: it is not known, and not shown.
    """
    return [panel for _, panel in _drawn(judged, categories, picture)]


def compared_panels(
    first: Judged, second: Judged, letters: tuple[str, str], categories: Categories, picture: np.ndarray | None
) -> list[Panel]:
    """The pictures of one image and two predictions: a row with those of the first, and one with those of the second.

    Args:
        first: the image with the first prediction.
        second: with the second one.
        letters: what they are called.
        categories: the classes.
        picture: see `panels`; where it is not known the truth stands in its place, too.
    """
    rows = []
    for judged, letter in zip((first, second), letters):
        drawn = dict(_drawn(judged, categories, picture))
        named = [drawn[title]._replace(title=f"{title} of {letter}") for title in ("prediction", "errors")]
        left = drawn.get("image", drawn["truth"]) if judged is first else drawn["truth"]
        rows += [left, *named]
    return rows


def _drawn(judged: Judged, categories: Categories, picture: np.ndarray | None) -> list[tuple[str, Panel]]:
    """Title and panel of each picture."""
    descriptor = drawing_descriptor(categories)
    truth, prediction = judged.image.truth, judged.image.prediction
    height, width = truth.ids.shape
    shrink = min(1.0, _LONGEST / max(height, width))
    rows, columns = max(1, round(height * shrink)), max(1, round(width * shrink))
    # Ids cannot be interpolated: of each block of pixels the middle one is kept.
    y = ((np.arange(rows) + 0.5) * height / rows).astype(int)
    x = ((np.arange(columns) + 0.5) * width / columns).astype(int)
    scale = display_scale(rows, columns, _SHORTER)
    photo = np.full((rows, columns, 3), _PAPER, np.uint8)
    drawn = []
    if picture is not None:
        photo = np.asarray(Image.fromarray(picture).resize((columns, rows), Image.Resampling.BICUBIC))
        large = Image.fromarray(photo).resize((columns * scale, rows * scale), Image.Resampling.BICUBIC)
        drawn.append(("image", np.asarray(large), "the image itself"))
    for title, labels in (("truth", truth), ("prediction", prediction)):
        small = as_panoptic(labels, descriptor)[y][:, x]
        names = _names(labels, categories)
        drawn.append((title, overlay(photo, small, descriptor, scale=scale), f"{title}: {names}"))
    errors = _errors(judged, photo, y, x, scale)
    drawn.append(("errors", errors, f"errors: {errors_in_words(judged)}"))
    return [
        (title, Panel(title, jpeg_url(pixels), pixels.shape[1], pixels.shape[0], f"{judged.image.name}, {alt}"))
        for title, pixels, alt in drawn
    ]


def errors_in_words(judged: Judged) -> str:
    """Such as "2 missed, 1 invented"."""
    parts = [f"{count} {kind.value}" for kind, count in judged.errors.counts().items() if count]
    return ", ".join(parts) or "none"


def drawing_descriptor(categories: Categories) -> DatasetDescriptor:
    """The classes under ids of their own, 1 to C, for drawing; ids of files may be anything."""
    classes = tuple(
        dataclasses.replace(c, id=number, source_id=number) for number, c in enumerate(categories.classes, 1)
    )
    return DatasetDescriptor(categories.name, classes, len(classes) + 1, 0, 2**16)


def as_panoptic(labels: LabelledMap, descriptor: DatasetDescriptor) -> np.ndarray:
    """The map as panoptic ids of `drawing_descriptor`, int32 [H, W]; crowds have instance id 0."""
    ids, index = np.unique(labels.ids, return_inverse=True)
    panoptic, instances = [], dict.fromkeys(range(len(descriptor.classes)), 0)
    for segment_id in ids.tolist():
        class_index = labels.classes.get(segment_id)
        if class_index is None:
            panoptic.append(0)
            continue
        instance = 0
        if descriptor.classes[class_index].is_thing and segment_id not in labels.crowds:
            instance = instances[class_index] = instances[class_index] + 1
        panoptic.append((class_index + 1) * descriptor.label_divisor + instance)
    return np.array(panoptic, np.int32)[index.reshape(labels.ids.shape)]


def _names(labels: LabelledMap, categories: Categories) -> str:
    present = np.unique(labels.ids).tolist()
    names = dict.fromkeys(categories.classes[labels.classes[i]].name for i in present if i in labels.classes)
    return ", ".join(names) or "nothing but void"


def _errors(judged: Judged, photo: np.ndarray, y: np.ndarray, x: np.ndarray, scale: int) -> np.ndarray:
    """The image in light grey with the wrong segments in the colors of their kinds."""
    kinds: list[Kind | None] = [None]
    index = np.zeros((len(y), len(x)), np.int64)
    truth, prediction = (each.ids[y][:, x] for each in (judged.image.truth, judged.image.prediction))
    for segment_id, kind in zip(judged.predicted_ids.tolist(), judged.errors.of_prediction):
        if kind is Kind.INVENTED:
            index[prediction == segment_id] = len(kinds)
            kinds.append(kind)
    # True segments come on top: of what was missed, all is to be seen.
    for segment_id, kind in zip(judged.true_ids.tolist(), judged.errors.of_truth):
        if kind is not None:
            index[truth == segment_id] = len(kinds)
            kinds.append(kind)
    grey = Image.fromarray(photo).convert("L").resize((len(x) * scale, len(y) * scale), Image.Resampling.BICUBIC)
    canvas = 130 + 0.45 * np.asarray(grey, np.float32)[..., np.newaxis].repeat(3, -1)
    index = index.repeat(scale, 0).repeat(scale, 1)
    colors = np.array([(0, 0, 0) if kind is None else COLORS[kind] for kind in kinds], np.float32)
    wrong = index > 0
    canvas[wrong] = (1 - _OPACITY) * canvas[wrong] + _OPACITY * colors[index[wrong]]
    lines = border_pixels(index, both_sides=False)
    canvas[lines] = 30
    pixels = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    texts = ["" if kind is None else kind.value for kind in kinds]
    return draw_captions(pixels, index, texts, _SMALLEST_NAMED * index.size)
