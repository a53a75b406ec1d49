r"""Converts the user's own data in COCO's panoptic format, with categories of its own, to TFRecords.

    deeplab2-kmax convert coco_panoptic --dataset=my/dataset.json --image_folder=my/photos \
        --annotations=my/panoptic_train.json --png_folder=my/panoptic_train --split=train --output_dir=my/records

    my/photos/NAME.jpg            any picture that `predict` reads
    my/panoptic_train.json        `annotations` with segments_info, and `categories`
    my/panoptic_train/NAME.png    segment ids as colors, R + 256 G + 256^2 B
Format: https://cocodataset.org/#format-data. If my/dataset.json does not exist, it is written from the categories.
"""

from __future__ import annotations

import functools
import json
import os.path
from collections.abc import Mapping
from typing import Any

from absl import flags

from deeplab2_kmax import files
from deeplab2_kmax.converters import command_line
from deeplab2_kmax.converters.reading.images import user_images
from deeplab2_kmax.converters.reading.labelled_images import (
    LabelledImage,
    panoptic_record,
    source_files,
    with_panoptic_pngs,
)
from deeplab2_kmax.converters.reading.panoptic_png import PanopticFormat, read_annotations
from deeplab2_kmax.converters.writing.sharded_output import Origin, ShardedOutput, Split
from deeplab2_kmax.datasets import DatasetDescriptor, load_dataset, read_descriptor, write_descriptor
from deeplab2_kmax.datasets.loader import descriptor_of_entries
from deeplab2_kmax.errors import ConfigError, DataError
from deeplab2_kmax.wording import counted

# For descriptors that are written from categories: room for 999 instances of a class.
_LABEL_DIVISOR = 1000
_IGNORE_LABEL = 0


def convert_coco_panoptic(
    dataset: str,
    image_folder: str,
    annotations: str,
    png_folder: str,
    output_dir: str,
    split: str = "train",
    treat_crowd_as_ignore: bool = True,
    num_shards: int | None = None,
    num_processes: int | None = None,
    beam: str | None = None,
) -> list[str]:
    """Writes one record for each image that has an annotation.

    Args:
        dataset: path of the descriptor file, whose source ids are the category ids. If there is no such file, it is
            written from the categories, see `descriptor_of_categories`.
        image_folder: the folder of the images, of any format that prediction reads. Splits may share it: images
            without an annotation are left out.
        annotations: the JSON file; the `file_name` of each annotation is the name of the image with .png.
        png_folder: the folder of the PNGs that the JSON names.
        output_dir: the folder for `<split>-XXXXX-of-XXXXX.tfrecord`; made where missing.
        split: what the names of the shards begin with.
        treat_crowd_as_ignore: label crowd regions as void, instead of as their thing class with instance id 0.
        num_shards, num_processes, beam: how the shards are written, see `ShardedOutput`.

    Returns:
        The paths of the shards, in order.

    Raises:
        ConfigError: the descriptor cannot be read or contradicts itself.
        DataError: images, PNGs or annotations are missing, broken or contradict each other (the message names file and
            segment); or the output folder cannot be written. The shards that are finished by then are kept for the
            next run, see `ShardedOutput`.
    """
    images = with_panoptic_pngs(_annotated(user_images(image_folder), annotations), annotations, png_folder)
    descriptor = _descriptor(dataset, annotations)
    source = PanopticFormat(descriptor, treat_crowd_as_ignore=treat_crowd_as_ignore)
    make_record = functools.partial(own_panoptic_record, source=source)
    origin = Origin("coco_panoptic", descriptor, {"treat_crowd_as_ignore": treat_crowd_as_ignore}, image_folder)
    with ShardedOutput(output_dir, num_shards, num_processes, beam) as output:
        return output.write([Split(split, images, make_record, source_files, (annotations,))], origin)


def own_panoptic_record(item: LabelledImage, source: PanopticFormat) -> bytes:
    """The record of an image and its panoptic PNG, see `panoptic_record`."""
    return panoptic_record(item, None, source)


def descriptor_of_categories(name: str, annotations: str) -> DatasetDescriptor:
    """Makes a descriptor from the `categories` of a COCO panoptic JSON.

    Classes are numbered from 1 in the order of the category ids, which become their source ids; 0 is void. Colors are
    those of the JSON; where it has none, they are chosen.

    Args:
        name: the name of the data set.
        annotations: the JSON file.

    Raises:
        DataError: the file cannot be read, a category lacks id, name or isthing, or two categories contradict each
            other.
    """
    try:
        categories = sorted(json.loads(files.read_text(annotations))["categories"], key=lambda each: each["id"])
        entries = [_class_entry(place + 1, category) for place, category in enumerate(categories)]
        return descriptor_of_entries(name, entries, ignore_label=_IGNORE_LABEL, label_divisor=_LABEL_DIVISOR)
    except OSError as error:
        raise DataError(f"{annotations}: cannot read the annotations: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        reason = str(error) if isinstance(error, ConfigError) else repr(error)
        raise DataError(
            f"{annotations}: expected `categories`, each with id, name and isthing, to write a descriptor from;"
            f" {reason}"
        ) from error


def _annotated(images: Mapping[str, str], annotations: str) -> dict[str, str]:
    """Those of the images that have an annotation in the JSON file `annotations`."""
    names = read_annotations(annotations)
    kept = {name: path for name, path in images.items() if name in names}
    if not kept:
        example = next(iter(names), None)
        raise DataError(
            f"{annotations}: expected annotations of images such as {next(iter(images.values()))}, got"
            f" {counted(len(names), 'annotation')}, none of them of one of the {counted(len(images), 'image')} (the"
            f" first is of {example!r})"
        )
    if len(kept) < len(images):
        print(f"{len(images) - len(kept)} of {counted(len(images), 'image')} left out: not listed in {annotations}")
    return kept


def _class_entry(class_id: int, category: Mapping[str, Any]) -> dict[str, Any]:
    entry = {"id": class_id, "source_id": category["id"], "is_thing": bool(category["isthing"])}
    color = {"color": list(category["color"])} if "color" in category else {}
    return {**entry, **color, "name": category["name"]}


def _descriptor(dataset: str, annotations: str) -> DatasetDescriptor:
    """The descriptor of `dataset`; if its file does not exist, it is written from the categories."""
    if not dataset.endswith(".json") or files.exists(dataset):
        return load_dataset(dataset)
    name = os.path.splitext(os.path.basename(dataset))[0]
    write_descriptor(dataset, descriptor_of_categories(name, annotations))
    print(f"{dataset}: written from the categories of {annotations}")
    return read_descriptor(dataset)


def _define_flags() -> None:
    flags.DEFINE_string(
        "dataset", None, "Descriptor file of the classes; if missing, written from the categories.", required=True
    )
    flags.DEFINE_string("image_folder", None, "Folder of the images (any picture that `predict` reads).", required=True)
    flags.DEFINE_string("annotations", None, "JSON file with annotations and categories.", required=True)
    flags.DEFINE_string("png_folder", None, "Folder of the PNGs that the JSON file names.", required=True)
    flags.DEFINE_string("split", "train", "What the names of the shards begin with.")
    command_line.define_shared_flags()


if __name__ == "__main__":
    _define_flags()
    command_line.convert_by_flags(convert_coco_panoptic, __doc__)
