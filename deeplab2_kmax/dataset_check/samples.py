"""Small pictures of records and their labels, for the page of a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from deeplab2_kmax.dataset_check.records import read_content
from deeplab2_kmax.dataset_check.report import Place, Report
from deeplab2_kmax.dataset_check.scan import read_record
from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.pictures.opening import without_pillows_warning
from deeplab2_kmax.visualization.borders import border_pixels
from deeplab2_kmax.visualization.coloring import segment_colors

_WIDTH, _HEIGHT = 270, 200
_LABEL_SHARE = 0.6
_MAGENTA = (255, 0, 255)


class Sample(NamedTuple):
    """One record as a picture.

    Attributes:
        place: where the record is.
        name: the name of its image.
        is_faulty: whether it has a fault.
        contents: what the label holds, in words.
        pixels: uint8 RGB [height, width, 3], the image on the left, the image tinted by its label on the right.
    """

    place: Place
    name: str
    is_faulty: bool
    contents: str
    pixels: np.ndarray


def draw_samples(report: Report, count: int) -> list[Sample]:
    """Draws `count` records: up to half of them with faults, then others, spread evenly over the split."""
    labelled, with_faults = set(report.places), set(report.faulty)
    faulty = [place for place in report.faulty if place in labelled][: max(1, count // 2)]
    sound = [place for place in report.places if place not in with_faults]
    samples = []
    for place in [*faulty, *spread(sound, count - len(faulty))]:
        with without_pillows_warning():
            content = read_content(read_record(place), has_labels=True)
        if content.image is not None and content.label is not None and content.image.shape[:2] == content.label.shape:
            pixels = beside(content.image, content.label, report.descriptor)
            contents = in_words(content.label, report.descriptor)
            samples.append(Sample(place, content.name, place in faulty, contents, pixels))
    return samples


def in_words(label: np.ndarray, descriptor: DatasetDescriptor) -> str:
    """What a label holds, for those who cannot see its picture: "circle, sky, void".

    Args:
        label: integer panoptic ids [height, width].
        descriptor: the classes.

    Returns:
        Names of classes in the order of their ids, then the ids of classes that do not exist, then void.
    """
    class_ids = [int(class_id) for class_id in np.unique(label // descriptor.label_divisor)]
    names = [descriptor.by_id[class_id].name for class_id in class_ids if class_id in descriptor.by_id]
    void = descriptor.ignore_label in class_ids
    unknown = [i for i in class_ids if i not in descriptor.by_id and i != descriptor.ignore_label]
    names += [f"class id {class_id}, which does not exist" for class_id in unknown]
    return ", ".join([*names, *(["void"] if void else [])])


def spread(items: Sequence[Place], count: int) -> list[Place]:
    """At most `count` of the items, spread evenly, in order."""
    if count >= len(items):
        return list(items)
    return [items[(2 * place + 1) * len(items) // (2 * count)] for place in range(count)]


def beside(image: np.ndarray, label: np.ndarray, descriptor: DatasetDescriptor) -> np.ndarray:
    """Draws an image, and to the right of it the image tinted by its label.

    Segments get the colors that overlays have. Void keeps the grey of the image, and ids of classes that do not exist
    are magenta.

    Args:
        image: uint8 RGB [height, width, 3].
        label: integer panoptic ids [height, width].
        descriptor: the classes.

    Returns:
        uint8 RGB [height', width', 3], small enough for a page.
    """
    scale = min(_WIDTH / image.shape[1], _HEIGHT / image.shape[0])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    small_label = np.asarray(Image.fromarray(label.astype(np.int32), "I").resize(size, Image.Resampling.NEAREST))
    grey = np.repeat(small.mean(-1, keepdims=True), 3, axis=-1)
    ids, index = np.unique(small_label, return_inverse=True)
    index = index.reshape(small_label.shape)
    class_ids = ids // descriptor.label_divisor
    known = np.isin(class_ids, [*descriptor.by_id, descriptor.ignore_label])
    colors = np.full((len(ids), 3), _MAGENTA, np.uint8)
    colors[known] = segment_colors(ids[known], descriptor)
    share = np.where(class_ids == descriptor.ignore_label, 0.0, _LABEL_SHARE)[index][..., None]
    tinted = grey * (1 - share) + colors[index] * share
    # A white line where a pixel differs from the one on its left or above it.
    tinted[border_pixels(index, both_sides=False)] = 255
    return np.concatenate([small, np.rint(tinted).astype(np.uint8)], axis=1)
