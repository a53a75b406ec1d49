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
import os.path
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from deeplab2_kmax import files
from deeplab2_kmax.converters import command_line
from deeplab2_kmax.converters.importing.document import load_json_object
from deeplab2_kmax.converters.panoptic_json import Annotations, Category, annotations_of, categories_of
from deeplab2_kmax.converters.reading.images import same_name, user_images
from deeplab2_kmax.converters.reading.labelled_images import (
    LabelledImage,
    panoptic_record,
    source_files,
    with_panoptic_pngs,
)
from deeplab2_kmax.converters.reading.panoptic_png import PanopticFormat
from deeplab2_kmax.converters.writing.sharded_output import NotedRecord, Origin, ShardedOutput, Split
from deeplab2_kmax.datasets import DatasetDescriptor, SegmentClass, load_dataset, new_descriptor
from deeplab2_kmax.datasets.loader import descriptor_of_entries
from deeplab2_kmax.errors import DataError, UserError
from deeplab2_kmax.wording import counted, some_of

# For descriptors that are written from categories: room for 999 instances of a class.
_LABEL_DIVISOR = 1000
_IGNORE_LABEL = 0
_NAMED = 5
# How the summary of a split calls them.
_OTHER_AREAS = "areas that differ from the PNG, which counts"


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
        annotations: the JSON file; `image_id` joins annotations and `images`. Without `images`, the `file_name` of an
            annotation is the name of the image with .png.
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
    content = load_json_object(annotations)
    listed = annotations_of(content, "images")
    images = with_panoptic_pngs(_annotated(image_folder, listed, annotations), listed, annotations, png_folder)
    categories = categories_of(content)
    descriptor = _descriptor(dataset, categories, annotations)
    source = PanopticFormat(
        descriptor,
        treat_crowd_as_ignore=treat_crowd_as_ignore,
        areas_are_optional=True,
        classes_by_category=classes_by_category(dataset, descriptor, categories, annotations),
    )
    _say_if_areas_are_missing(images, annotations)
    make_record = functools.partial(own_panoptic_record, source=source)
    settings = {"treat_crowd_as_ignore": treat_crowd_as_ignore}
    origin = Origin("coco_panoptic", descriptor, settings, image_folder, new_descriptor(dataset))
    with ShardedOutput(output_dir, num_shards, num_processes, beam) as output:
        return output.write([Split(split, images, make_record, source_files, (annotations,))], origin)


def own_panoptic_record(item: LabelledImage, source: PanopticFormat) -> NotedRecord:
    """The record of an image and its panoptic PNG, see `panoptic_record`; notes areas that the PNG contradicts."""
    areas: dict[int, int] = {}
    record = panoptic_record(item, None, source, areas)
    other = sum(segment.get("area") not in (None, areas[segment["id"]]) for segment in item.segments)
    return NotedRecord(record, item.name, {_OTHER_AREAS: other} if other else {})


def descriptor_of_categories(name: str, categories: Sequence[Category], annotations: str) -> DatasetDescriptor:
    """Makes a descriptor from the `categories` of a COCO panoptic JSON.

    Classes are numbered from 1 in the order of the category ids, which become their source ids; 0 is void. Colors are
    those of the JSON; where it has none, they are chosen.

    Args:
        name: the name of the data set.
        categories: of the file.
        annotations: the JSON file, for messages.

    Raises:
        DataError: there are no categories, one does not say whether it is a thing, or its values are out of range.
    """
    if not categories:
        raise DataError(
            f"{annotations}: expected `categories`, each with id, name and isthing, to write a descriptor from; got"
            " none. Add them, or write the descriptor yourself (docs/your_own_dataset.md)"
        )
    ordered = sorted(categories, key=lambda category: category.id)
    entries = [_class_entry(place + 1, category) for place, category in enumerate(ordered)]
    try:
        return descriptor_of_entries(name, entries, ignore_label=_IGNORE_LABEL, label_divisor=_LABEL_DIVISOR)
    except UserError as error:
        raise DataError(f"{annotations}: expected `categories` that make a descriptor, but {error}") from error


def classes_by_category(
    dataset: str, descriptor: DatasetDescriptor, categories: Sequence[Category], annotations: str
) -> dict[int, SegmentClass] | None:
    """The class of each category id of a JSON file, which may number the classes in another way than the descriptor.

    Tools number the categories of each export anew, so that one id may mean two things in the files of two splits.
    Therefore names decide. A line on the terminal tells which ids were mapped.

    Args:
        dataset: the descriptor's name or path, for messages.
        descriptor: the classes.
        categories: of the JSON file.
        annotations: the JSON file, for messages.

    Returns:
        {category id: class}, categories without a class left out; None if the file lists no categories.

    Raises:
        DataError: a category has the id of a class, but the name of none; or it is a thing in one of them and stuff in
            the other.
    """
    if not categories:
        return None
    by_name = {c.name: c for c in descriptor.classes}
    classes: dict[int, SegmentClass] = {}
    mapped = []
    for category in categories:
        name, same_id, same_name = category.name, descriptor.by_source_id.get(category.id), by_name.get(category.name)
        if same_name is None and same_id is not None:
            raise DataError(
                f"{annotations}: category {category.id} is {name!r} here, but {same_id.name!r} in {dataset}, which"
                f" knows no {name!r}; expected the same names. Rename the category or the class, or convert into a data"
                " set of its own"
            )
        if same_name is None:
            continue
        if category.is_thing not in (None, same_name.is_thing):
            raise DataError(
                f"{category.where}: expected isthing {int(same_name.is_thing)} for {name!r}, as in {dataset}, got"
                f" {int(not same_name.is_thing)}; make both the same, or convert into a data set of its own"
            )
        classes[category.id] = same_name
        if same_name is not same_id:
            mapped.append(f"{name} is {category.id} here and {same_name.source_id} there")
    if mapped:
        print(f"{annotations}: categories are mapped by name to {dataset}: {some_of(mapped, _NAMED, separator='; ')}")
    return classes


def _annotated(image_folder: str, names: Annotations, annotations: str) -> dict[str, str]:
    """The pictures that have an annotation in the JSON file: {name as the JSON has it: path}."""
    if not names:
        raise DataError(f"{annotations}: expected annotations of the images in {image_folder}, got none")
    listed: dict[str, dict[str, str]] = {}
    kept = {}
    for name in names:
        folder, base = posixpath.split(name)
        # A name may hold the folders where its maker kept the pictures; here they may lie in one folder.
        below = files.join(image_folder, folder) if folder else image_folder
        place = below if files.is_folder(below) else image_folder
        if place not in listed:
            listed[place] = {same_name(stem): path for stem, path in user_images(place).items()}
        if same_name(base) in listed[place]:
            kept[name] = listed[place][same_name(base)]
    pictures = [path for images in listed.values() for path in images.values()]
    if not kept:
        raise DataError(
            f"{annotations}: expected annotations of images such as {pictures[0]}, got"
            f" {counted(len(names), 'annotation')}, none of them of one of the {counted(len(pictures), 'image')} (the"
            f" first is of {next(iter(names))!r})"
        )
    _require_names_that_differ(kept)
    if len(kept) < len(pictures):
        print(f"{len(pictures) - len(kept)} of {counted(len(pictures), 'image')} left out: not listed in {annotations}")
    return {name: kept[name] for name in sorted(kept)}


def _require_names_that_differ(kept: Mapping[str, str]) -> None:
    """Records name images without folders, so that these names have to differ."""
    seen: dict[str, str] = {}
    for name, path in kept.items():
        base = posixpath.basename(name)
        if base in seen:
            raise DataError(f"{path}: expected image names that differ, {seen[base]} has the same")
        seen[base] = path


def _say_if_areas_are_missing(images: Sequence[LabelledImage], annotations: str) -> None:
    missing = sum("area" not in segment for image in images for segment in image.segments if isinstance(segment, dict))
    if missing:
        print(f"{annotations}: {counted(missing, 'segment')} without area, which is counted from the PNGs")


def _class_entry(class_id: int, category: Category) -> dict[str, Any]:
    if category.is_thing is None:
        raise DataError(
            f"{category.where}: expected the field isthing, 0 or 1, to write a descriptor from; {category.name!r} lacks"
            " it"
        )
    entry = {"id": class_id, "source_id": category.id, "is_thing": category.is_thing}
    color = {} if category.color is None else {"color": list(category.color)}
    return {**entry, **color, "name": category.name}


def _descriptor(dataset: str, categories: Sequence[Category], annotations: str) -> DatasetDescriptor:
    """The descriptor of `dataset`; if its file does not exist, one is made from the categories."""
    if new_descriptor(dataset) is None:
        return load_dataset(dataset)
    return descriptor_of_categories(os.path.splitext(os.path.basename(dataset))[0], categories, annotations)


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
