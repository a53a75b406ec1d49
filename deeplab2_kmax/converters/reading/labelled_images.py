"""Images paired with their labels, as the converters of panoptic data sets need them.

A converter finds the images of its data set, pairs each with its label, and writes one record for each pair.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any, NamedTuple

from absl import logging

from deeplab2_kmax import files
from deeplab2_kmax.converters.reading.images import FilesByName, image_record
from deeplab2_kmax.converters.reading.panoptic_png import PanopticFormat, read_panoptic_label
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.wording import counted


class LabelledImage(NamedTuple):
    """One image and the source of its label.

    Attributes:
        name: the name of the image in the record, by which evaluation names its results.
        image_path: the image file.
        label_path: the file of the label; None in a split without labels.
        segments: `segments_info` of the annotation if the label is a panoptic PNG; else empty.
    """

    name: str
    image_path: str
    label_path: str | None = None
    segments: list[dict[str, Any]] = []


def source_files(item: LabelledImage) -> list[str]:
    """The files that the record of an image is made from."""
    return [item.image_path] if item.label_path is None else [item.image_path, item.label_path]


def present_splits(root_flag: str, root: str, folders: Mapping[str, str]) -> list[str]:
    """The splits whose image folder exists. The others are named on the terminal.

    Args:
        root_flag: the name of the flag that `root` comes from.
        root: the folder of the data set.
        folders: {split: its image folder below `root`}.

    Raises:
        DataError: none of the folders exists.
    """
    present = []
    for split, folder in folders.items():
        if files.is_folder(files.join(root, folder)):
            present.append(split)
        else:
            print(f"split {split}: left out, there is no folder {files.join(root, folder)}")
    if not present:
        raise DataError(f"{root_flag}: expected at least one of the folders {', '.join(folders.values())} in {root}")
    return present


def without_labels(images: Mapping[str, str]) -> list[LabelledImage]:
    """The images, {name: file}, of a split that has no labels."""
    return [LabelledImage(name, path) for name, path in images.items()]


def with_panoptic_pngs(
    images: Mapping[str, str], annotations: Mapping[str, tuple[str, list[Any]]], json_path: str, png_folder: str
) -> list[LabelledImage]:
    """Each image with its panoptic PNG and its segments.

    A warning tells how many annotations are left out because they have no image.

    Args:
        images: {name: image file}.
        annotations: {name of the image: (file name of its PNG, its `segments_info`)}.
        json_path: the file that they are from, for messages.
        png_folder: the folder of the PNGs that the annotations name.

    Raises:
        DataError: an image has no annotation or no PNG.
    """
    pngs = FilesByName(png_folder)
    found = []
    for name, image_path in images.items():
        if name not in annotations:
            raise DataError(f"{image_path}: expected an annotation in {json_path}, got none")
        png_name, segments = annotations[name]
        png_path = pngs.find(png_name)
        if png_path is None:
            path = files.join(png_folder, png_name)
            raise DataError(f"{path}: no such file, though {json_path} lists it for {image_path}")
        found.append(LabelledImage(posixpath.basename(name), image_path, png_path, segments))
    if left := len(annotations) - len(found):
        logging.warning("%s: left out %s without an image", json_path, counted(left, "annotation"))
    return found


def panoptic_record(
    item: LabelledImage, image_format: str | None, source: PanopticFormat, areas: dict[int, int] | None = None
) -> bytes:
    """The record, a serialized tf.train.Example, of an image and its panoptic PNG, if it has one.

    Args:
        item: the image.
        image_format: see `schema.encode_record`.
        source: how the data set uses the panoptic format.
        areas: see `read_panoptic_label`.

    Raises:
        DataError: the image or the label is broken, or they do not belong together.
    """
    label = None
    if item.label_path is not None:
        label = read_panoptic_label(item.label_path, item.segments, source, areas)
    return image_record(item.name, item.image_path, image_format, label)
