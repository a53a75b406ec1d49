r"""Converts Mapillary Vistas to TFRecords.

    deeplab2-kmax convert mapillary --dataset=my/vistas.json --mapillary_root=vistas --output_dir=my/records

    vistas/config_v2.0.json                       the labels; config.json in releases before v1.2
    vistas/training/images/NAME.jpg               also validation/; testing/ becomes records without labels
    vistas/training/v2.0/instances/NAME.png       16 bits, label * 256 + instance; training/instances/ before v1.2
Format: demo.py and README of the data set. --release is v1.2 or v2.0; by default v2.0, or what there is.

If my/vistas.json does not exist, it is written from the labels, by their names. Those with `instances` are things, each
number of which, also 0, is an instance; those that are not evaluated become void, as in Mapillary's own evaluation.
Among these are the groups of v2.0, in which things are not told apart.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from absl import flags

from deeplab2_kmax import files
from deeplab2_kmax.converters import command_line
from deeplab2_kmax.converters.importing.classes import NamedClass, classes_by_name, descriptor_for
from deeplab2_kmax.converters.importing.coco_json import color_of
from deeplab2_kmax.converters.importing.document import Entry, load_json_object
from deeplab2_kmax.converters.reading import label_pngs
from deeplab2_kmax.converters.reading.images import image_files, image_record, list_folder, read_source
from deeplab2_kmax.converters.reading.label_pngs import LabelPngFormat
from deeplab2_kmax.converters.reading.labelled_images import (
    LabelledImage,
    present_splits,
    source_files,
    without_labels,
)
from deeplab2_kmax.converters.writing.sharded_output import Origin, ShardedOutput, Split
from deeplab2_kmax.datasets import new_descriptor
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.pictures.label_pngs import decode_numbers
from deeplab2_kmax.pictures.opening import png_depth
from deeplab2_kmax.wording import counted

RELEASES = ("v2.0", "v1.2")
_FOLDERS = {"train": "training", "val": "validation", "test": "testing"}
_UNLABELLED_SPLITS = ("test",)
# A pixel is label * 256 + instance, in 16 bits.
_INSTANCES = 256
_BITS = 16
# No source_id, which count from 0.
_VOID = -1


@dataclasses.dataclass(frozen=True)
class VistasLabels:
    """What the labels of a release mean, by their numbers.

    Attributes:
        png: the meaning of the source ids.
        source_ids: of the class of each label; -1 means void.
        are_things: whether each label has instances.
    """

    png: LabelPngFormat
    source_ids: Sequence[int]
    are_things: Sequence[bool]


def convert_mapillary(
    dataset: str,
    mapillary_root: str,
    output_dir: str,
    release: str | None = None,
    void_classes: Sequence[str] = (),
    num_shards: int | None = None,
    num_processes: int | None = None,
    beam: str | None = None,
) -> list[str]:
    """Writes one record for each image of the splits that are there: train, val and, without labels, test.

    Args:
        dataset: path of the descriptor file. If there is no such file, it is written from the labels.
        mapillary_root: the folder with config and splits.
        output_dir: the folder for `<split>-XXXXX-of-XXXXX.tfrecord`; made where missing.
        release: one of `RELEASES`, of which a folder may hold both; None: the newest that is there, or that of
            config.json.
        void_classes: the names of labels that become void, besides those that are not evaluated.
        num_shards, num_processes, beam: how the shards are written, see `ShardedOutput`.

    Returns:
        The paths of the shards, in order.

    Raises:
        ConfigError: the descriptor cannot be read or contradicts itself.
        DataError: config, images or labels are missing, broken or contradict each other (the message names the file);
            or the output folder cannot be written. The shards that are finished by then are kept for the next run, see
            `ShardedOutput`.
    """
    config_path, folder = _find_release(mapillary_root, release)
    images = {}
    for split in present_splits("mapillary_root", mapillary_root, {k: f"{v}/images" for k, v in _FOLDERS.items()}):
        images[split] = _find_images(files.join(mapillary_root, _FOLDERS[split]), split, folder)
    labels = read_labels(config_path, dataset, void_classes)
    make_record = functools.partial(vistas_record, labels=labels)
    settings = {"release": folder, "void_classes": list(void_classes)}
    origin = Origin("mapillary", labels.png.descriptor, settings, mapillary_root, new_descriptor(dataset))
    with ShardedOutput(output_dir, num_shards, num_processes, beam) as output:
        splits = [Split(name, items, make_record, source_files, (config_path,)) for name, items in images.items()]
        return output.write(splits, origin)


def read_labels(config_path: str, dataset: str, void_classes: Sequence[str] = ()) -> VistasLabels:
    """Reads the labels of a release; where there is no descriptor `dataset`, one is made from them.

    Raises:
        ConfigError: the descriptor cannot be read or contradicts itself.
        DataError: the config cannot be read or is none of Mapillary Vistas, or does not fit the descriptor.
    """
    entries = load_json_object(config_path).entries("labels")
    found, void = [], list(void_classes)
    for number, entry in enumerate(entries):
        found.append(NamedClass(entry.name("name"), entry.flag("instances"), color_of(entry), number))
        if not entry.flag("evaluate"):
            void.append(found[-1].name)
    _require_names_that_differ(found, entries)
    descriptor = descriptor_for(dataset, found, (), void, None, config_path)
    classes = classes_by_name(dataset, descriptor, [each.name for each in found], void, config_path)
    by_number = [classes[each.name] for each in found]
    return VistasLabels(
        LabelPngFormat(descriptor, frozenset([_VOID])),
        tuple(_VOID if each is None else each.source_id for each in by_number),
        tuple(each is not None and each.is_thing for each in by_number),
    )


def vistas_record(item: LabelledImage, labels: VistasLabels) -> bytes:
    """The record, a serialized tf.train.Example, of an image and its instance PNG, if it has one.

    Raises:
        DataError: a file is broken, or image, PNG and config contradict each other; the message names the file.
    """
    label = None if item.label_path is None else _panoptic_label(item.label_path, labels)
    return image_record(item.name, item.image_path, None, label)


def _find_release(root: str, release: str | None) -> tuple[str, str]:
    """The path of the config, and the folder of the labels within that of a split; "" for the split's own."""
    if release is not None and release not in RELEASES:
        raise DataError(f"release: expected one of {', '.join(RELEASES)}, got {release!r}")
    configs = {each: files.join(root, f"config_{each}.json") for each in ([release] if release else RELEASES)}
    for each, path in configs.items():
        if files.exists(path):
            return path, each
    path = files.join(root, "config.json")
    if release is None and files.exists(path):
        return path, ""
    names = ", ".join([*configs.values(), *([] if release else [path])])
    raise DataError(f"{root}: expected Mapillary Vistas with the labels in {names}, got no such file")


def _find_images(folder: str, split: str, release_folder: str) -> list[LabelledImage]:
    """The images of a split, sorted by name, with their labels."""
    images = image_files(files.join(folder, "images"), ".jpg")
    if split in _UNLABELLED_SPLITS:
        return without_labels(images)
    label_folder = files.join(folder, release_folder, "instances")
    there = set(list_folder(label_folder))
    for name, path in images.items():
        if f"{name}.png" not in there:
            raise DataError(f"{files.join(label_folder, name)}.png: no such file; expected it as label of {path}")
    unused = len([name for name in there if name.endswith(".png") and name[: -len(".png")] not in images])
    if unused:
        print(f"split {split}: {counted(unused, 'label')} without an image left out ({label_folder})")
    return [LabelledImage(name, path, files.join(label_folder, f"{name}.png")) for name, path in images.items()]


def _require_names_that_differ(found: Sequence[NamedClass], entries: Sequence[Entry]) -> None:
    # Also names of void labels, which no descriptor holds.
    names = [each.name for each in found]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise DataError(f"{entries[place].place('name')}: expected names that differ, got {name!r} twice")


def _panoptic_label(path: str, labels: VistasLabels) -> np.ndarray:
    content = read_source(path, "label")
    numbers = decode_numbers(content, path)
    if png_depth(content) != _BITS:
        raise DataError(
            f"{path}: expected a PNG with {_BITS} bits, label * {_INSTANCES} + instance, got one with"
            f" {png_depth(content)}; those of the folder `labels` have no instances"
        )
    values, instances = np.divmod(numbers, _INSTANCES)
    if values.max() >= len(labels.source_ids):
        area = int((values == values.max()).sum())
        raise DataError(
            f"{path}: {counted(area, 'pixel')} of label {values.max()}: expected one of the"
            f" {counted(len(labels.source_ids), 'label')} of the config; is it that of another release?"
        )
    # Instances count from 0 here, and from 1 in `label_pngs`, where 0 means none.
    instances = np.where(np.array(labels.are_things)[values], instances + 1, 0)
    return label_pngs.panoptic_label(np.array(labels.source_ids)[values], instances, labels.png, path)


def _define_flags() -> None:
    flags.DEFINE_string("dataset", None, "Descriptor file; if missing, written from the labels.", required=True)
    flags.DEFINE_string("mapillary_root", None, "Folder with the config, training and validation.", required=True)
    flags.DEFINE_enum("release", None, RELEASES, "Which labels; by default the newest that are there.")
    flags.DEFINE_list("void_classes", [], "Labels that become void, besides those that are not evaluated.")
    command_line.define_shared_flags(treat_crowd_as_ignore=None)


if __name__ == "__main__":
    _define_flags()
    command_line.convert_by_flags(convert_mapillary, __doc__)
