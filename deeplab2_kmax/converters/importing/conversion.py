"""From pictures with regions to a descriptor and records: the part of the work that is the same for all tools."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deeplab2_kmax.converters.importing.classes import NamedClass, classes_by_name, descriptor_for
from deeplab2_kmax.converters.importing.document import as_bytes, load_json_object
from deeplab2_kmax.converters.importing.painting import OVERLAPS, PaintRules, panoptic_label
from deeplab2_kmax.converters.importing.regions import AnnotatedImage
from deeplab2_kmax.converters.reading.images import image_record, read_source
from deeplab2_kmax.converters.writing.sharded_output import NotedRecord, Origin, ShardedOutput, Split
from deeplab2_kmax.datasets import DatasetDescriptor, SegmentClass, new_descriptor
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.pictures.opening import exif_orientation
from deeplab2_kmax.wording import counted, some_of

_NAMED = 8
# EXIF orientations that mirror or turn upside down.
_SAME_SIZE = (2, 3, 4)
TURNED = "pictures that EXIF data turn without a change of size, whose annotations are taken to be upright"


@dataclasses.dataclass(frozen=True)
class ImportRules:
    """What the user decides about an import; each field is a flag of all importers.

    Attributes:
        stuff_classes: the names of the classes that are stuff, for exports that do not say; all others are things.
        void_classes: the names of the classes whose regions become void.
        background_class: the name of the stuff class of pixels without a region; None: they are void.
        overlaps: one of `OVERLAPS`; None: what the tool itself shows on top.
        treat_crowd_as_ignore: label crowd regions as void, instead of as their thing class with instance id 0.
    """

    stuff_classes: Sequence[str] = ()
    void_classes: Sequence[str] = ()
    background_class: str | None = None
    overlaps: str | None = None
    treat_crowd_as_ignore: bool = True

    def __post_init__(self) -> None:
        if self.overlaps not in (None, *OVERLAPS):
            raise DataError(f"overlaps: expected one of {', '.join(OVERLAPS)}, got {self.overlaps!r}")


@dataclasses.dataclass(frozen=True)
class Shards:
    """How the shards are written; see `ShardedOutput` for the fields, each of which is a flag of all importers."""

    output_dir: str
    num_shards: int | None = None
    num_processes: int | None = None
    beam: str | None = None


@dataclasses.dataclass(frozen=True)
class Export:
    """What an importer has read.

    Attributes:
        converter: the name of the importer.
        splits: {name of the split: its pictures}.
        classes: the classes of the export, in its order.
        annotations: {name of the split: its annotation files}.
        source: the annotation file or folder, which messages begin with.
        overlaps: which of `OVERLAPS` the tool itself shows on top.
        settings: options besides `ImportRules` that decide what is in the records; values that JSON can hold.
        root: the folder of the data; None if there is none.
        stuff_values: the class name of each number in the stuff PNGs of pictures, if they have any; None means void.
        void_classes: the names of those of its classes that mean void in the tool itself.
    """

    converter: str
    splits: Mapping[str, Sequence[AnnotatedImage]]
    classes: Sequence[NamedClass]
    annotations: Mapping[str, Sequence[str]]
    source: str
    overlaps: str = "later_on_top"
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    root: str | None = None
    stuff_values: Mapping[int, str | None] = dataclasses.field(default_factory=dict)
    void_classes: Sequence[str] = ()


def write_records(export: Export, dataset: str, rules: ImportRules, shards: Shards) -> list[str]:
    """Writes one record for each picture of an export, and the descriptor if its file does not exist.

    Args:
        export: what the importer has read.
        dataset: the path of the descriptor file, or the name of a built-in data set; see `descriptor_for`.
        rules: what the user decides.
        shards: how the shards are written.

    Returns:
        The paths of the shards, in order.

    Raises:
        ConfigError: the descriptor cannot be read or contradicts itself.
        DataError: classes, pictures or regions are broken or contradict each other; or the output folder cannot be
            written. The shards that are finished by then are kept for the next run, see `ShardedOutput`.
    """
    _require_images(export)
    void_classes = [*rules.void_classes, *export.void_classes]
    descriptor = descriptor_for(
        dataset, export.classes, rules.stuff_classes, void_classes, rules.background_class, export.source
    )
    classes = classes_by_name(dataset, descriptor, _names(export), void_classes, export.source)
    paint = PaintRules(
        descriptor,
        classes,
        rules.overlaps or export.overlaps,
        rules.treat_crowd_as_ignore,
        background_of(dataset, descriptor, rules.background_class),
        {value: None if name is None else classes[name] for value, name in export.stuff_values.items()},
    )
    make_record = functools.partial(imported_record, rules=paint)
    settings = {**export.settings, **dataclasses.asdict(rules), "overlaps": paint.overlaps}
    splits = [
        Split(name, images, make_record, source_files, tuple(export.annotations.get(name, ())))
        for name, images in export.splits.items()
        if images
    ]
    with ShardedOutput(shards.output_dir, shards.num_shards, shards.num_processes, shards.beam) as output:
        origin = Origin(export.converter, descriptor, settings, export.root, new_descriptor(dataset))
        return output.write(splits, origin)


def imported_record(item: AnnotatedImage, rules: PaintRules) -> NotedRecord:
    """The record of a picture and its regions, and what of them its label does not hold.

    Raises:
        DataError: picture or regions are broken, or do not belong together.
    """
    losses: dict[str, int] = {}

    def label(height: int, width: int) -> np.ndarray:
        painted, lost = panoptic_label(item, height, width, rules)
        losses.update(lost)
        losses.update(_doubts(exif_orientation(content), height, width))
        return painted

    if item.image_field is None:
        content = read_source(item.image_path, "image")
    else:
        annotations = load_json_object(item.image_path)
        content = as_bytes(annotations.text(item.image_field), annotations.place(item.image_field), "a picture")
    return NotedRecord(image_record(item.name, item.image_path, None, label, content), item.name, losses)


def _doubts(orientation: int, height: int, width: int) -> dict[str, int]:
    """Whether EXIF turns a picture in a way that its size does not show, so that nothing tells if the tool has, too."""
    keeps_size = orientation in _SAME_SIZE or (orientation > 1 and height == width)
    return {TURNED: 1} if keeps_size else {}


def source_files(item: AnnotatedImage) -> list[str]:
    """The files that the record of a picture is made from."""
    return [item.image_path, *item.label_paths]


def _require_images(export: Export) -> None:
    """Refuses an export without a picture, and one with two of the same name, by which records name them."""
    if not any(export.splits.values()):
        raise DataError(f"{export.source}: expected at least one annotated picture, got none")
    for split, images in export.splits.items():
        paths: dict[str, str] = {}
        for image in images:
            if paths.get(image.name) == image.image_path:
                raise DataError(f"{image.where}: expected each picture once in {split}, got {image.image_path} again")
            if image.name in paths:
                raise DataError(
                    f"{image.where}: expected names of pictures that differ within a split, but {image.image_path} and"
                    f" {paths[image.name]} are both {image.name!r} in {split}; rename one of them"
                )
            paths[image.name] = image.image_path


def _names(export: Export) -> list[str]:
    """The names of the classes that regions have, the most frequent first, and of those that stuff PNGs may have."""
    names = collections.Counter(r.class_name for images in export.splits.values() for i in images for r in i.regions)
    stuff = [name for name in export.stuff_values.values() if name is not None]
    return list(dict.fromkeys([*(name for name, _ in names.most_common()), *stuff]))


def background_of(dataset: str, descriptor: DatasetDescriptor, name: str | None) -> SegmentClass | None:
    """The stuff class of pixels without a region; None for void.

    Raises:
        DataError: the descriptor has no stuff class of this name.
    """
    if name is None:
        return None
    stuff = {c.name: c for c in descriptor.classes if not c.is_thing}
    if name not in stuff:
        known = f"one of {some_of(stuff, _NAMED)}" if stuff else "of which it has none"
        raise DataError(f"background_class: expected a stuff class of {dataset}, {known}; got {name!r}")
    return stuff[name]


def tell_left_out(images: int, of: int, reason: str) -> None:
    """Prints how many pictures get no record, and why."""
    if images:
        print(f"{images} of {counted(of, 'picture')} left out: {reason}")


def tell_kinds_left_out(kinds: Mapping[str, int], source: str) -> None:
    """Prints how many annotations without an area, such as lines and points, are left out of the labels.

    Args:
        kinds: how many there are of each kind, by the tool's word for it.
        source: the annotation file or folder.
    """
    if kinds:
        found = some_of([f"{count:,} {kind}" for kind, count in sorted(kinds.items())], _NAMED)
        print(f"{source}: annotations without an area left out: {found}")
