r"""Converts masks in PASCAL VOC's layout, such as CVAT's "Segmentation mask 1.1", to TFRecords.

    deeplab2-kmax convert voc --dataset=my/dataset.json --folder=my/export --output_dir=my/records

    my/export/JPEGImages/NAME.jpg                     any picture that `predict` reads (--image_folder: elsewhere)
    my/export/SegmentationClass/NAME.png              classes, as colors, indices into a palette, or grey values
    my/export/SegmentationObject/NAME.png             instances: each color or number is one
    my/export/ImageSets/Segmentation/train.txt        names of the pictures of a split
    my/export/labelmap.txt                            label:color:parts:actions; without it, VOC's 21 classes
Each list is a split; trainval or default is the split train where there is none. Colors decide, also those of palettes;
grey values are indices into the label map. Pixels of `background`, or black where the label map has none, are void, or
of the stuff class --background_class. Index 255 and the color 224,224,192 are void. Instances of stuff are one segment.
Pixels of things without an instance are a crowd, and counted. Without SegmentationObject, all classes are stuff.
Pictures that are listed, but have no PNG of classes, are left out and counted.
"""

from __future__ import annotations

import dataclasses
import functools
import os.path
import posixpath
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from absl import flags

from deeplab2_kmax import files
from deeplab2_kmax.converters import command_line
from deeplab2_kmax.converters.importing.classes import NamedClass, classes_by_name, descriptor_for
from deeplab2_kmax.converters.importing.conversion import ImportRules, Shards, background_of, tell_left_out
from deeplab2_kmax.converters.importing.document import quoted, read_annotation_text
from deeplab2_kmax.converters.importing.voc_labels import (
    BACKGROUND,
    LabelMap,
    class_names,
    instance_numbers,
    read_label_map,
)
from deeplab2_kmax.converters.reading.images import FilesByName, image_record, list_folder, split_by_fraction
from deeplab2_kmax.converters.reading.label_pngs import LabelPngFormat, panoptic_label
from deeplab2_kmax.converters.writing.sharded_output import NotedRecord, Origin, ShardedOutput, Split
from deeplab2_kmax.datasets import DatasetDescriptor, new_descriptor
from deeplab2_kmax.errors import DataError

WITHOUT_INSTANCE = "pixels of things without an instance"
_LISTS = "ImageSets/Segmentation"
# No source id of a class.
_VOID = -1


class VocImage(NamedTuple):
    """One picture and its mask PNGs; `object_path` is None if all classes are stuff."""

    name: str
    image_path: str
    class_path: str
    object_path: str | None


@dataclasses.dataclass(frozen=True)
class VocMasks:
    """The meaning of mask PNGs.

    Attributes:
        labels: the label map.
        source_ids: {name of a class in it: source id in the descriptor, -1 for void}.
        format: how the numbers of classes and instances become a label.
    """

    labels: LabelMap
    source_ids: Mapping[str, int]
    format: LabelPngFormat


def convert_voc(
    dataset: str,
    folder: str,
    shards: Shards,
    rules: ImportRules | None = None,
    image_folder: str | None = None,
    val_fraction: float = 0.0,
) -> list[str]:
    """Writes one record for each picture that is listed and has a PNG of classes.

    Args:
        dataset: path of the descriptor file, or the name of a built-in data set; if there is no such file, it is
            written from the label map. In a descriptor that is there, names find the classes.
        folder: the export.
        shards: how the shards are written.
        rules: what the user decides; None for the defaults. Masks do not overlap, so `overlaps` means nothing.
        image_folder: the folder of the pictures; None for JPEGImages in the export.
        val_fraction: the share of the pictures that goes to the split "val" where there is no list of that name.

    Returns:
        The paths of the shards, in order.

    Raises:
        ConfigError: the descriptor cannot be read or contradicts itself.
        DataError: pictures, masks, lists or the label map are missing, broken or contradict each other (the message
            names the file); or the output folder cannot be written.
    """
    rules = rules or ImportRules()
    labels = read_label_map(folder)
    lists = _lists(folder)
    splits = {split: _images(folder, path, image_folder) for split, path in lists.items()}
    if val_fraction and "val" in splits:
        raise DataError(f"val_fraction: expected 0, as {lists['val']} lists the pictures of val, got {val_fraction:g}")
    if not any(splits.values()):
        raise DataError(f"{folder}: expected at least one picture with a PNG in SegmentationClass, got none")
    has_instances = any(each.object_path is not None for images in splits.values() for each in images)
    descriptor = _descriptor(dataset, labels, rules, has_instances)
    masks = _masks(dataset, descriptor, labels, rules)
    make_record = functools.partial(voc_record, masks=masks)
    settings = {"labels": dict(zip(labels.names, labels.colors)), **dataclasses.asdict(rules)}
    parts: dict[str, list[VocImage]] = {}
    for split, images in splits.items():
        parts.update(split_by_fraction(images, split, val_fraction if split == "train" else 0.0))
    with ShardedOutput(shards.output_dir, shards.num_shards, shards.num_processes, shards.beam) as output:
        return output.write(
            [
                Split(split, images, make_record, source_files, (lists.get(split, lists.get("train", "")),))
                for split, images in parts.items()
            ],
            Origin("voc", descriptor, settings, folder, new_descriptor(dataset)),
        )


def voc_record(item: VocImage, masks: VocMasks) -> NotedRecord:
    """The record of a picture and its masks, and how many pixels of things have no instance.

    Raises:
        DataError: a file is broken, or the files contradict each other; the message names the file.
    """
    runs, names = class_names(item.class_path, masks.labels)
    semantic = runs.paint(np.array([_VOID if name is None else masks.source_ids[name] for name in names], np.int32))
    instances = None if item.object_path is None else instance_numbers(item.object_path)
    where = item.class_path if item.object_path is None else f"{item.class_path} with {item.object_path}"
    label = panoptic_label(semantic, instances, masks.format, where)
    losses = {}
    if instances is not None:
        things = [c.source_id for c in masks.format.descriptor.classes if c.is_thing]
        lost = int((np.isin(semantic, things) & (instances == 0)).sum())
        losses = {WITHOUT_INSTANCE: lost} if lost else {}
    return NotedRecord(image_record(item.name, item.image_path, None, label), item.name, losses)


def source_files(item: VocImage) -> list[str]:
    """The files that the record of a picture is made from."""
    return [path for path in (item.image_path, item.class_path, item.object_path) if path is not None]


def _lists(folder: str) -> dict[str, str]:
    """{split: the list of its pictures}"""
    place = files.join(folder, _LISTS)
    if not files.is_folder(place):
        raise DataError(
            f"{place}: expected this folder with lists such as train.txt, which is not there; give --folder the folder"
            " that JPEGImages, SegmentationClass and ImageSets lie in"
        )
    paths: dict[str, str] = {}
    for name in list_folder(place):
        split, ending = os.path.splitext(name.lower())
        if split in paths:
            raise DataError(f"{paths[split]}: expected lists whose names differ in more than capitals, got {name}, too")
        if ending == ".txt":
            paths[split] = files.join(place, name)
    for everything in ("trainval", "default"):
        if everything in paths and "train" not in paths and "val" not in paths:
            paths["train"] = paths.pop(everything)
    if "trainval" in paths:
        parts = [name for split, path in paths.items() if split in ("train", "val") for name in _listed(path)]
        union = _listed(paths.pop("trainval"))
        tell_left_out(len(union.keys() - set(parts)), len(union), "in trainval, but not in train or val")
    if not paths:
        raise DataError(f"{place}: expected lists of pictures such as train.txt, got none")
    return paths


def _images(folder: str, list_path: str, image_folder: str | None) -> list[VocImage]:
    """The pictures of a list that have a PNG of classes, sorted by name."""
    image_folder = files.join(folder, "JPEGImages") if image_folder is None else image_folder
    if not files.is_folder(image_folder):
        raise DataError(
            f"{image_folder}: expected the folder of the pictures, which is not there; export with pictures, or give"
            " --image_folder"
        )
    pictures = FilesByName(image_folder)
    class_folder, object_folder = (files.join(folder, f"Segmentation{kind}") for kind in ("Class", "Object"))
    classes, objects = FilesByName(class_folder), FilesByName(object_folder)
    has_objects = files.is_folder(object_folder)
    found: dict[str, VocImage] = {}
    listed = _listed(list_path)
    for name, where in listed.items():
        picture, class_path = pictures.find_picture(name), classes.find(name + ".png")
        if picture is None:
            raise DataError(f"{where}: expected a picture {quoted(name)} in {image_folder}, which is not there")
        if class_path is None:
            continue
        object_path = objects.find(name + ".png") if has_objects else None
        if has_objects and object_path is None:
            raise DataError(f"{where}: expected {quoted(name + '.png')} in {object_folder}, as in SegmentationClass")
        base = posixpath.basename(name.replace("\\", "/"))
        if base in found:
            raise DataError(f"{where}: expected names that differ, also without folders, got a second {quoted(base)}")
        found[base] = VocImage(base, picture, class_path, object_path)
    tell_left_out(len(listed) - len(found), len(listed), f"no PNG in {class_folder}")
    return [found[name] for name in sorted(found)]


def _listed(path: str) -> dict[str, str]:
    """{name that a list holds: its place}"""
    found: dict[str, str] = {}
    for number, line in enumerate(read_annotation_text(path).split("\n"), start=1):
        name, where = line.strip(), f"{path}: line {number}"
        if name in found:
            raise DataError(f"{where}: expected names that differ, got {quoted(name)} a second time")
        if name:
            found[name] = where
    return found


def _descriptor(dataset: str, labels: LabelMap, rules: ImportRules, has_instances: bool) -> DatasetDescriptor:
    """The descriptor of `dataset`; if its file does not exist, one is made from the label map."""
    if not has_instances:
        print("no SegmentationObject: all classes are stuff, and there are no instances")
    found = [
        NamedClass(name, None if has_instances else False, labels.rgb(name), index)
        for index, name in enumerate(labels.names)
        if name not in (BACKGROUND, rules.background_class)
    ]
    if rules.background_class is not None:
        # After the others, so that their ids do not depend on it.
        name = rules.background_class
        if name in labels.names:
            found.append(NamedClass(name, False, labels.rgb(name), labels.names.index(name)))
        else:
            found.append(NamedClass(name, False, source_id=len(labels.names)))
    return descriptor_for(dataset, found, rules.stuff_classes, rules.void_classes, rules.background_class, labels.where)


def _masks(dataset: str, descriptor: DatasetDescriptor, labels: LabelMap, rules: ImportRules) -> VocMasks:
    background = background_of(dataset, descriptor, rules.background_class)
    names = [name for name in labels.names if name != BACKGROUND]
    classes = classes_by_name(dataset, descriptor, names, rules.void_classes, labels.where)
    chosen = {**classes, BACKGROUND: background}
    source_ids = {name: _VOID if each is None else each.source_id for name, each in chosen.items()}
    png_format = LabelPngFormat(
        descriptor, frozenset([_VOID]), rules.treat_crowd_as_ignore, ignore_stuff_instances=True
    )
    return VocMasks(labels, source_ids, png_format)


def _define_flags() -> None:
    flags.DEFINE_string("folder", None, "Folder of the export.", required=True)
    flags.DEFINE_string("image_folder", None, "Folder of the pictures; by default JPEGImages in the export.")
    flags.DEFINE_float("val_fraction", 0.0, "Share of the pictures that goes to val where no list is of that name.")
    command_line.define_import_flags()


if __name__ == "__main__":
    _define_flags()
    command_line.convert_by_flags(convert_voc, __doc__)
