r"""Converts COCO's instances JSON, which many tools export, alone or with stuff, to TFRecords.

    deeplab2-kmax convert coco_instances --dataset=my/dataset.json --image_folder=my/photos \
        --annotations=my/instances_train.json --split=train --output_dir=my/records

    my/photos/NAME.jpg            any picture that `predict` reads
    my/instances_train.json       `images`, `categories`, and `annotations` with polygons or run lengths
Stuff comes from the same file (--stuff_classes=sky,road), or from one or two others:
    --stuff_annotations=stuff_train.json   the same format, such as COCO-Stuff's stuff_train2017.json
    --stuff_png_folder=my/stuff            NAME.png with one number a pixel; the JSON then only names the categories
--stuff_png_values says what the numbers mean. category_ids: ids of categories, 0 none, as in COCO-Stuff's pixelmaps
(elsewhere 255, too); stuffthingmaps: one less than the ids, 255 none, as in COCO-Stuff's maps of that name. Stuff lies
below all instances. Numbers of things mean void, so that a thing without an instance is void; so does COCO-Stuff's
"other" (183).

Smaller regions lie on top of larger ones; --overlaps changes it. Annotations without a segmentation are refused; boxes
become rectangles with --boxes. `bbox` and `area` are not read otherwise. Datumaro, by which CVAT exports, marks masks
that it does not turn into polygons as crowds; --ignore_iscrowd makes things of them. Pictures without an annotation are
left out, as the file does not tell whether they are done; --empty_images says that they are.
"""

from __future__ import annotations

import dataclasses
import os.path
from collections.abc import Mapping

from absl import flags

from deeplab2_kmax.converters import command_line
from deeplab2_kmax.converters.importing.classes import NamedClass
from deeplab2_kmax.converters.importing.coco_json import CocoFile, CocoImage, read_categories, read_coco_json
from deeplab2_kmax.converters.importing.conversion import Export, ImportRules, Shards, tell_left_out, write_records
from deeplab2_kmax.converters.importing.document import load_json_object, quoted
from deeplab2_kmax.converters.importing.regions import AnnotatedImage
from deeplab2_kmax.converters.reading.images import FilesByName, split_by_fraction
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.names import without_ending
from deeplab2_kmax.wording import counted

STUFF_PNG_VALUES = ("category_ids", "stuffthingmaps")
# COCO-Stuff gives this stuff category to all pixels of things.
_PIXELS_OF_THINGS = NamedClass("other", is_thing=False, source_id=183)
_COCO_STUFFS_UNLABELLED = {"category_ids": (0,), "stuffthingmaps": (255,)}


def convert_coco_instances(
    dataset: str,
    image_folder: str,
    annotations: str,
    shards: Shards,
    rules: ImportRules | None = None,
    stuff_annotations: str | None = None,
    stuff_png_folder: str | None = None,
    stuff_png_values: str = "category_ids",
    boxes: bool = False,
    ignore_iscrowd: bool = False,
    empty_images: bool = False,
    split: str = "train",
    val_fraction: float = 0.0,
) -> list[str]:
    """Writes one record for each picture that has annotations.

    Args:
        dataset: path of the descriptor file, or the name of a built-in data set; if there is no such file, it is
            written from the categories. In a descriptor that is there, names find the classes, not category ids.
        image_folder: the folder of the pictures; their names in the file may hold folders.
        annotations: the JSON file of instances.
        shards: how the shards are written.
        rules: what the user decides; None for the defaults. That for overlaps is "smaller_on_top".
        stuff_annotations: a JSON file of stuff in the same format; pictures have to be in both.
        stuff_png_folder: the folder of PNGs of stuff; the annotations of `stuff_annotations` are then not read.
        stuff_png_values: one of `STUFF_PNG_VALUES`, what the numbers in these PNGs mean.
        boxes: take annotations without a segmentation for the rectangles of their boxes.
        ignore_iscrowd: take each annotation for one thing, whatever its iscrowd is.
        empty_images: whether pictures without an annotation hold no thing, and get a record.
        split: what the names of the shards begin with.
        val_fraction: the share of the pictures that goes to the split "val", see `split_by_fraction`.

    Returns:
        The paths of the shards, in order.

    Raises:
        ConfigError: the descriptor cannot be read or contradicts itself.
        DataError: pictures, PNGs or annotations are missing, broken or contradict each other (the message names file
            and annotation); or the output folder cannot be written.
    """
    export = read_coco_instances(
        image_folder,
        annotations,
        stuff_annotations,
        stuff_png_folder,
        stuff_png_values,
        boxes,
        ignore_iscrowd,
        empty_images,
        split,
        val_fraction,
    )
    rules = rules or ImportRules()
    if _PIXELS_OF_THINGS in export.classes:
        print(f'{stuff_annotations}: "other" is of pixels of things, which are void where no instance is')
        rules = dataclasses.replace(rules, void_classes=(*rules.void_classes, _PIXELS_OF_THINGS.name))
    return write_records(export, dataset, rules, shards)


def read_coco_instances(
    image_folder: str,
    annotations: str,
    stuff_annotations: str | None = None,
    stuff_png_folder: str | None = None,
    stuff_png_values: str = "category_ids",
    boxes: bool = False,
    ignore_iscrowd: bool = False,
    empty_images: bool = False,
    split: str = "train",
    val_fraction: float = 0.0,
) -> Export:
    """Reads the annotations and finds the pictures; see `convert_coco_instances` for arguments and errors."""
    if stuff_png_values not in STUFF_PNG_VALUES:
        raise DataError(f"stuff_png_values: expected {' or '.join(STUFF_PNG_VALUES)}, got {quoted(stuff_png_values)}")
    if stuff_png_folder is not None and stuff_annotations is None:
        raise DataError(
            "stuff_annotations: expected the JSON file that names the categories of the PNGs in --stuff_png_folder,"
            " such as COCO-Stuff's stuff_val2017.json; got none"
        )
    with_stuff = stuff_annotations is not None
    things = read_coco_json(annotations, boxes, ignore_iscrowd, level=int(with_stuff))
    stuff = _stuff_file(stuff_annotations, stuff_png_folder) if stuff_annotations is not None else None
    stuff_categories = {} if stuff is None else _stuff_categories(things, stuff)
    for file, categories in ((things, things.categories), (stuff or things, stuff_categories)):
        _require_names_that_differ(file.path, categories)
    from_pngs = stuff_png_folder is not None
    images = annotated_images(
        things,
        image_folder,
        stuff=None if from_pngs else stuff,
        stuff_png_folder=stuff_png_folder,
        empty_images=empty_images or from_pngs,
    )
    meanings = _stuff_values(things, stuff_categories, stuff_png_values) if from_pngs else {}
    # Whoever has stuff in a file of its own has only things in the other.
    thing_classes = [each._replace(is_thing=True) if with_stuff else each for each in things.categories.values()]
    return Export(
        converter="coco_instances",
        splits=dict(split_by_fraction(images, split, val_fraction)),
        classes=[*thing_classes, *stuff_categories.values()],
        annotations={name: [each.path for each in (things, stuff) if each is not None] for name in (split, "val")},
        source=annotations,
        overlaps="smaller_on_top",
        settings={
            "stuff_png_values": stuff_png_values if from_pngs else None,
            "boxes": boxes,
            "ignore_iscrowd": ignore_iscrowd,
        },
        root=image_folder,
        stuff_values=meanings,
    )


def annotated_images(
    things: CocoFile,
    image_folder: str,
    stuff: CocoFile | None = None,
    stuff_png_folder: str | None = None,
    empty_images: bool = False,
) -> list[AnnotatedImage]:
    """The pictures of a file with their regions and files, in the order of their names.

    Those that are left out, and the crowds, are counted on the terminal.

    Args:
        things: the file of instances.
        image_folder: the folder of the pictures.
        stuff: the file of stuff; None if there is none.
        stuff_png_folder: the folder of PNGs of stuff; None if there are none.
        empty_images: whether pictures without an annotation are kept.

    Raises:
        DataError: a picture or PNG is not there, or the two files mean different pictures by one id.
    """
    listed = _in_both(things, stuff)
    regions = {image_id: _regions_of(image_id, things, stuff) for image_id in listed}
    kept = {image_id: image for image_id, image in listed.items() if regions[image_id] or empty_images}
    tell_left_out(
        len(listed) - len(kept), len(listed), "no annotations (--empty_images keeps them as pictures of nothing)"
    )
    _tell_crowds(things)
    pictures = FilesByName(image_folder)
    pngs = None if stuff_png_folder is None else FilesByName(stuff_png_folder)
    found = []
    for image_id, image in kept.items():
        path = _found(pictures, image.file_name, image, image_folder)
        png = None
        if pngs is not None and stuff_png_folder is not None:
            png = _found(pngs, without_ending(image.file_name) + ".png", image, stuff_png_folder)
        name = without_ending(os.path.basename(path))
        labels = () if png is None else (png,)
        found.append(AnnotatedImage(name, path, regions[image_id], image.where, image.size, labels, png))
    return sorted(found, key=lambda each: each.name)


def _stuff_file(path: str, png_folder: str | None) -> CocoFile:
    """The file of stuff; of its annotations nothing where PNGs hold the stuff."""
    if png_folder is None:
        return read_coco_json(path)
    content = load_json_object(path)
    return CocoFile(path, read_categories(content), {}, {}, frozenset(), {})


def _stuff_categories(things: CocoFile, stuff: CocoFile) -> dict[int, NamedClass]:
    """The categories of the file of stuff that are stuff: those that the file of instances has as well are things."""
    by_name = {each.name: each for each in things.categories.values()}
    found: dict[int, NamedClass] = {}
    for category_id, category in stuff.categories.items():
        same_id, same_name = things.categories.get(category_id), by_name.get(category.name)
        if same_id is None and same_name is None:
            found[category_id] = category._replace(is_thing=False)
            continue
        if same_id is not same_name:
            other = same_id or same_name
            raise DataError(
                f"{stuff.path}: category {category_id} is {category.name!r}, but {things.path} has"
                f" {other.name if other else ''!r} as {other.source_id if other else ''}; expected ids and names that"
                " differ from those of the things, or both the same"
            )
        if category_id in stuff.used:
            raise DataError(
                f"{stuff.path}: expected annotations of stuff, got some of {category.name!r}, which is a category of"
                f" {things.path}, too; put them there, or rename the category"
            )
    if not found:
        raise DataError(f"{stuff.path}: expected categories of stuff, got only those of {things.path}")
    return found


def _require_names_that_differ(path: str, categories: Mapping[int, NamedClass]) -> None:
    """Names find the classes, so that a second category of a name would be taken for the first."""
    ids: dict[str, int] = {}
    for category_id, category in categories.items():
        if category.name in ids:
            raise DataError(
                f"{path}: expected names of categories that differ, but {ids[category.name]} and {category_id} are both"
                f" {quoted(category.name)}; rename one of them"
            )
        ids[category.name] = category_id


def _stuff_values(things: CocoFile, stuff_categories: Mapping[int, NamedClass], values: str) -> dict[int, str | None]:
    """{number in a PNG of stuff: name of the class, None for void}."""
    offset = 1 if values == "stuffthingmaps" else 0
    # COCO-Stuff comes as PNGs of both kinds: here, 255 shows that they are of the other.
    is_coco_stuff = _PIXELS_OF_THINGS in stuff_categories.values()
    unlabelled = (0, 255) if values == "category_ids" and not is_coco_stuff else _COCO_STUFFS_UNLABELLED[values]
    meanings: dict[int, str | None] = dict.fromkeys(unlabelled)
    meanings.update((category_id - offset, None) for category_id in things.categories if category_id >= offset)
    for category_id, category in stuff_categories.items():
        if category == _PIXELS_OF_THINGS and offset:
            continue  # These maps have the things themselves.
        if category_id - offset in meanings:
            raise DataError(
                f"stuff_png_values: {category_id - offset} is category {category.name!r}, but as {values} has to mean"
                " pixels without stuff; number the categories in another way"
            )
        meanings[category_id - offset] = None if category == _PIXELS_OF_THINGS else category.name
    return meanings


def _in_both(things: CocoFile, stuff: CocoFile | None) -> dict[int | str, CocoImage]:
    """The pictures that both files list."""
    if stuff is None:
        return dict(things.images)
    for image_id, image in stuff.images.items():
        other = things.images.get(image_id)
        if other is not None and (other.file_name, other.size) != (image.file_name, image.size):
            raise DataError(
                f"{image.where}: expected the picture {quoted(other.file_name)} of {other.size[1]} x {other.size[0]}"
                f" pixels, as id {quoted(image_id)} of {things.path} has, got {quoted(image.file_name)} of"
                f" {image.size[1]} x {image.size[0]}"
            )
    both = {image_id: image for image_id, image in things.images.items() if image_id in stuff.images}
    everything = {**things.images, **stuff.images}
    tell_left_out(len(everything) - len(both), len(everything), f"not in both {things.path} and {stuff.path}")
    return both


def _regions_of(image_id: int | str, *sources: CocoFile | None) -> list:
    return [region for source in sources if source is not None for region in source.regions.get(image_id, ())]


def _tell_crowds(things: CocoFile) -> None:
    regions = [region for regions in things.regions.values() for region in regions]
    crowds = sum(region.is_crowd for region in regions)
    if crowds:
        print(
            f"{things.path}: {crowds:,} of {counted(len(regions), 'annotation')} with iscrowd 1, which are taken for"
            " things that are not told apart (--ignore_iscrowd takes each for one thing)"
        )


def _found(there: FilesByName, name: str, image: CocoImage, folder: str) -> str:
    path = there.find(name)
    if path is None:
        raise DataError(f"{image.where}: expected the file {quoted(name)} in {folder}, which is not there")
    return path


def _define_flags() -> None:
    flags.DEFINE_string("image_folder", None, "Folder of the pictures.", required=True)
    flags.DEFINE_string("annotations", None, "JSON file of the instances.", required=True)
    flags.DEFINE_string("stuff_annotations", None, "JSON file of the stuff, or of the categories of its PNGs.")
    flags.DEFINE_string("stuff_png_folder", None, "Folder of PNGs of the stuff, with one number a pixel.")
    flags.DEFINE_enum("stuff_png_values", "category_ids", STUFF_PNG_VALUES, "What the numbers in these PNGs mean.")
    flags.DEFINE_boolean("boxes", False, "Take annotations without a segmentation for rectangles.")
    flags.DEFINE_boolean("ignore_iscrowd", False, "Take each annotation for one thing, whatever its iscrowd is.")
    flags.DEFINE_boolean("empty_images", False, "Pictures without an annotation hold no thing; they get a record.")
    command_line.define_split_flags()
    command_line.define_import_flags()


if __name__ == "__main__":
    _define_flags()
    command_line.convert_by_flags(convert_coco_instances, __doc__)
