"""Semantic label PNGs, one class id a pixel, as the labels of records."""

from __future__ import annotations

import numpy as np

from deeplab2_kmax.converters.reading.labelled_images import LabelledImage, image_record
from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.records.label_runs import LabelRuns
from deeplab2_kmax.records.schema import open_image


def semantic_record(item: LabelledImage, image_format: str, descriptor: DatasetDescriptor) -> bytes:
    """The serialized tf.train.Example of an image and its semantic PNG, kept as it is (label format "png").

    Args:
        item: the image; its label a grey PNG of class ids and the ignore label, or None.
        image_format: how the image file is encoded: "jpeg" or "png".
        descriptor: its class ids are those of the PNG.

    Raises:
        DataError: a file that is broken, sizes that differ, or an id that is no class.
    """
    label = None if item.label_path is None else _checked_png(item.label_path, descriptor)
    return image_record(item, image_format, label)


def _checked_png(path: str, descriptor: DatasetDescriptor) -> bytes:
    try:
        with open(path, "rb") as file:
            encoded = file.read()
    except OSError as error:
        raise DataError(f"{path}: cannot read the semantic PNG: {error.strerror}") from error
    image = open_image(encoded, path)
    if (image.format, image.mode) != ("PNG", "L"):
        raise DataError(f"{path}: expected a grey PNG of class ids (mode L), came {image.format} of mode {image.mode}")
    runs = LabelRuns(np.asarray(image))
    for class_id, area in zip(runs.values.tolist(), runs.areas.tolist()):
        if class_id != descriptor.ignore_label and class_id not in descriptor.by_id:
            raise DataError(
                f"{path}: segment {class_id}: {area} pixels have this id, which is neither a class of "
                f"{descriptor.name} nor its ignore label {descriptor.ignore_label}"
            )
    return encoded
