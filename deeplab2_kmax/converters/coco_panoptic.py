r"""Converts data in COCO's panoptic format with categories of one's own to TFRecords.

    deeplab2-kmax convert coco_panoptic --dataset=my/dataset.json --image_folder=my/photos \
        --annotations=my/panoptic_train.json --png_folder=my/panoptic_train --split=train --output_dir=my/records

    my/photos/NAME.jpg            JPEG or PNG
    my/panoptic_train.json        `annotations` with segments_info, `categories`
    my/panoptic_train/NAME.png    segment ids as colours, R + 256 G + 256^2 B
Format: https://cocodataset.org/#format-data. Where my/dataset.json is missing it is written from the categories.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from typing import Any

from absl import flags

from deeplab2_kmax.converters import command_line
from deeplab2_kmax.converters.folder import image_format, picture_files
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
from deeplab2_kmax.programs import run_program

# Of descriptors written here: room for 999 instances of a class.
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
    """Writes one record for each picture.

    Args:
        dataset: path of the descriptor file, whose source ids are the category ids; where there is no such file, it is
            written from the categories, see `descriptor_of_categories`.
        image_folder: pictures, .jpg, .jpeg or .png; those without an annotation are left out, so splits may share it.
        annotations: the JSON; the `file_name` of each annotation is the picture's name with .png.
        png_folder: the PNGs that it names.
        output_dir: where `<split>-XXXXX-of-XXXXX.tfrecord` go; made if need be.
        split: what the names of the shards begin with.
        treat_crowd_as_ignore: label crowd regions void instead of thing class with instance 0.
        num_shards: files a split; None chooses by the number of images.
        num_processes: None chooses by the number of images and cores.
        beam: options of an Apache Beam pipeline that does the work instead of processes here, see `beam_shards`.

    Returns:
        The paths of the shards, in order.

    Raises:
        ConfigError: the descriptor cannot be read or does not make sense.
        DataError: annotations, PNGs or pictures that are missing, broken or disagree (the message names file and
            segment); an output directory that cannot be written. What is finished by then is kept for the next run,
            see `ShardedOutput`.
    """
    images = with_panoptic_pngs(_annotated(picture_files(image_folder), annotations), annotations, png_folder)
    descriptor = _descriptor(dataset, annotations)
    source = PanopticFormat(descriptor, treat_crowd_as_ignore=treat_crowd_as_ignore)
    make_record = functools.partial(own_panoptic_record, source=source)
    origin = Origin("coco_panoptic", descriptor, {"treat_crowd_as_ignore": treat_crowd_as_ignore}, image_folder)
    with ShardedOutput(output_dir, num_shards, num_processes, beam) as output:
        return output.write([Split(split, images, make_record, source_files, (annotations,))], origin)


def own_panoptic_record(item: LabelledImage, source: PanopticFormat) -> bytes:
    """The serialized tf.train.Example of a picture, JPEG or PNG, and its panoptic PNG."""
    return panoptic_record(item, image_format(item.image_path), source)


def descriptor_of_categories(name: str, annotations: str) -> DatasetDescriptor:
    """The descriptor of the `categories` of a COCO panoptic JSON.

    Classes are numbered from 1 in the order of the category ids, which become source ids; 0 is void. Colours are the
    JSON's, or chosen where it has none.

    Raises:
        DataError: there are no categories with id, name and isthing, or they make no descriptor.
    """
    try:
        with open(annotations, encoding="utf-8") as file:
            categories = sorted(json.load(file)["categories"], key=lambda category: category["id"])
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


def _annotated(pictures: Mapping[str, str], annotations: str) -> dict[str, str]:
    """The pictures that the JSON has an annotation of."""
    names = read_annotations(annotations)
    kept = {name: path for name, path in pictures.items() if name in names}
    if not kept:
        example = next(iter(names), None)
        raise DataError(
            f"{annotations}: expected annotations of pictures such as {next(iter(pictures.values()))}, came"
            f" {len(names)}, none of them for any of the {len(pictures)} pictures (the first is for {example!r})"
        )
    if len(kept) < len(pictures):
        print(f"{len(pictures) - len(kept)} of {len(pictures)} pictures left out: {annotations} does not list them")
    return kept


def _class_entry(class_id: int, category: Mapping[str, Any]) -> dict[str, Any]:
    entry = {"id": class_id, "source_id": category["id"], "is_thing": bool(category["isthing"])}
    color = {"color": list(category["color"])} if "color" in category else {}
    return {**entry, **color, "name": category["name"]}


def _descriptor(dataset: str, annotations: str) -> DatasetDescriptor:
    if not dataset.endswith(".json") or os.path.exists(dataset):
        return load_dataset(dataset)
    name = os.path.splitext(os.path.basename(dataset))[0]
    write_descriptor(dataset, descriptor_of_categories(name, annotations))
    print(f"{dataset}: written from the categories of {annotations}")
    return read_descriptor(dataset)


def _define_flags() -> None:
    flags.DEFINE_string(
        "dataset", None, "Descriptor file of the classes; where missing, written from the categories.", required=True
    )
    flags.DEFINE_string("image_folder", None, "Folder of pictures (JPEG or PNG).", required=True)
    flags.DEFINE_string("annotations", None, "The JSON of annotations and categories.", required=True)
    flags.DEFINE_string("png_folder", None, "Folder of the PNGs that the JSON names.", required=True)
    flags.DEFINE_string("split", "train", "What the names of the shards begin with.")
    command_line.define_crowd_flag()
    command_line.define_output_flags()
    flags.adopt_module_key_flags(command_line)


def main() -> None:
    """Converts as the flags say."""
    command_line.convert_by_flags(convert_coco_panoptic)


if __name__ == "__main__":
    _define_flags()
    run_program(main, __doc__)
