"""Images and where their labels lie: what the converters of panoptic data sets have in common.

A converter finds its data set's images, joins each with its label, and writes one record of each pair.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from absl import logging

from deeplab2_kmax.converters.reading.panoptic_png import PanopticFormat, read_annotations, read_panoptic_label
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.records import schema


class LabelledImage(NamedTuple):
    """One image and where its label comes from.

    Attributes:
        name: what the record calls it; evaluation names its results by it.
        image_path: the image file.
        label_path: the file of the label; None in a split without labels.
        segments: `segments_info` where the label is a panoptic PNG; else empty.
    """

    name: str
    image_path: str
    label_path: str | None = None
    segments: list[dict[str, Any]] = []


def source_files(item: LabelledImage) -> list[str]:
    """The files that a record is made from."""
    return [item.image_path] if item.label_path is None else [item.image_path, item.label_path]


def present_splits(root_flag: str, root: str, folders: Mapping[str, str]) -> list[str]:
    """Those splits whose image folder is there; the others are named on the terminal.

    Args:
        root_flag: the name of the flag that `root` comes from.
        root: the folder of the data set.
        folders: each split's image folder below `root`.

    Raises:
        DataError: none is there.
    """
    present = []
    for split, folder in folders.items():
        if os.path.isdir(os.path.join(root, folder)):
            present.append(split)
        else:
            print(f"split {split}: left out, there is no folder {os.path.join(root, folder)}")
    if not present:
        raise DataError(f"{root_flag}: expected at least one of the folders {', '.join(folders.values())} in {root}")
    return present


def image_files(folder: str, suffix: str, in_subfolders: bool = False) -> dict[str, str]:
    """Image files by their names without `suffix`, in the order of their paths.

    Args:
        folder: where to look.
        suffix: what the file names end with, such as ".jpg".
        in_subfolders: the images lie one folder deeper.

    Raises:
        DataError: none is found, or two have the same name.
    """
    try:
        folders = [os.path.join(folder, name) for name in os.listdir(folder)] if in_subfolders else [folder]
        folders = sorted(path for path in folders if os.path.isdir(path))
        paths = [os.path.join(path, name) for path in folders for name in sorted(os.listdir(path))]
    except OSError as error:
        raise DataError(f"{folder}: cannot read the folder: {error.strerror}") from error
    images: dict[str, str] = {}
    for path in paths:
        if path.endswith(suffix):
            name = os.path.basename(path)[: -len(suffix)]
            if name in images:
                raise DataError(f"{path}: expected image names that differ, {images[name]} has the same")
            images[name] = path
    if not images:
        raise DataError(f"{folder}: expected images {'*/' if in_subfolders else ''}*{suffix}, came none")
    return images


def without_labels(images: Mapping[str, str]) -> list[LabelledImage]:
    """The images of a split that has no labels."""
    return [LabelledImage(name, path) for name, path in images.items()]


def with_panoptic_pngs(
    images: Mapping[str, str], json_path: str, png_folder: str, image_is: str = "file_name"
) -> list[LabelledImage]:
    """Each image with its panoptic PNG and its segments. Annotations without an image are counted in a warning.

    Args:
        images: image files by name.
        json_path: the annotations.
        png_folder: where the PNGs lie that the annotations name.
        image_is: see `read_annotations`.

    Raises:
        DataError: broken annotations, an image without annotation, or one whose PNG is missing.
    """
    annotations = read_annotations(json_path, image_is)
    pngs = set(os.listdir(png_folder)) if os.path.isdir(png_folder) else set()
    found = []
    for name, image_path in images.items():
        png_name, segments = annotations.pop(name, (None, []))
        if png_name is None:
            raise DataError(f"{image_path}: expected an annotation in {json_path}, came none")
        png_path = os.path.join(png_folder, png_name)
        if png_name not in pngs:
            raise DataError(f"{png_path}: no such file, though {json_path} lists it for {image_path}")
        found.append(LabelledImage(name, image_path, png_path, segments))
    if annotations:
        logging.warning("%s: left out %d annotations that have no image", json_path, len(annotations))
    return found


def panoptic_record(item: LabelledImage, image_format: str, source: PanopticFormat) -> bytes:
    """The serialized tf.train.Example of an image and its panoptic PNG; without a label where it has none.

    Args:
        item: the image.
        image_format: how image files are encoded: "jpeg" or "png".
        source: how the data set uses the panoptic format.

    Raises:
        DataError: an image or label that is broken, or that do not belong together.
    """
    label = None
    if item.label_path is not None:
        label = read_panoptic_label(item.label_path, item.segments, source)
    return image_record(item, image_format, label)


def image_record(item: LabelledImage, image_format: str, label) -> bytes:
    """The serialized tf.train.Example of an image and its label, see `schema.encode_record`.

    Raises:
        DataError: the image cannot be read, is broken, or the label is not of its size; the message names the file.
    """
    try:
        with open(item.image_path, "rb") as file:
            image_bytes = file.read()
        return schema.encode_record(image_bytes, image_format, item.name, label)
    except OSError as error:
        raise DataError(f"{item.image_path}: cannot read the image: {error.strerror}") from error
    except DataError as error:
        raise DataError(f"{item.image_path}: {error}") from error
