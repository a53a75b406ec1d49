"""Semantic labels: PNGs of one class id a pixel, which records keep as they are."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from deeplab2_kmax.converters.reading.images import image_record, read_source
from deeplab2_kmax.converters.reading.labelled_images import LabelledImage
from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.pictures.label_pngs import decode_numbers
from deeplab2_kmax.pictures.opening import open_whole, png_depth
from deeplab2_kmax.records.label_runs import LabelRuns
from deeplab2_kmax.wording import counted

_BITS = 8


def semantic_record(item: LabelledImage, image_format: str, descriptor: DatasetDescriptor) -> bytes:
    """The record, a serialized tf.train.Example, of an image and its semantic PNG (label format "png"), if it has one.

    Args:
        item: the image; its label is a grey PNG of class ids and the ignore label.
        image_format: how the image file is encoded: "jpeg" or "png".
        descriptor: the classes.

    Raises:
        DataError: a file is broken, image and label differ in size, or an id belongs to no class.
    """
    label = None if item.label_path is None else _checked_png(item.label_path, descriptor)
    return image_record(item.name, item.image_path, image_format, label)


def _checked_png(path: str, descriptor: DatasetDescriptor) -> bytes:
    """The bytes of a semantic PNG of 8 bits, after a check of its ids; one of fewer bits is encoded again."""
    encoded = read_source(path, "semantic PNG")
    image = open_whole(encoded, path)
    if image.format != "PNG" or image.mode not in ("1", "L"):
        raise DataError(f"{path}: expected a grey PNG of class ids (mode L), got {image.format} of mode {image.mode}")
    ids = decode_numbers(encoded, path)
    for class_id, area in LabelRuns(ids).items():
        if class_id != descriptor.ignore_label and class_id not in descriptor.by_id:
            raise DataError(
                f"{path}: class id {class_id} of {counted(area, 'pixel')}: expected the id of a class of "
                f"{descriptor.name} or its ignore label {descriptor.ignore_label}"
            )
    if png_depth(encoded) == _BITS:
        return encoded
    # Whoever reads the record takes grey of fewer bits for shades, and scales them.
    stream = io.BytesIO()
    Image.fromarray(ids.astype(np.uint8)).save(stream, format="png")
    return stream.getvalue()
