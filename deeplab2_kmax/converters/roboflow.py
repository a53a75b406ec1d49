r"""Converts an export of Roboflow in the format "COCO segmentation" to TFRecords.

    deeplab2-kmax convert roboflow --dataset=my/dataset.json --folder=my/export --output_dir=my/records

    my/export/train/_annotations.coco.json          COCO's instances JSON
    my/export/train/NAME_jpg.rf.HASH.jpg            its pictures
    my/export/valid/..., my/export/test/...         the same; valid becomes the split val
The name of a picture in records is NAME_jpg.rf.HASH, as Roboflow may make several pictures of one by augmentation. An
export of a single folder is the split train.

Smaller regions lie on top of larger ones; --overlaps changes it. Annotations that are boxes only are refused, or become
rectangles with --boxes. All pictures get a record; those without an annotation are counted, and taken for what Roboflow
calls null, pictures that show nothing of the classes. The category of id 0 that stands for the group of all classes is
left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from absl import flags

from deeplab2_kmax import files
from deeplab2_kmax.converters import command_line
from deeplab2_kmax.converters.coco_instances import annotated_images
from deeplab2_kmax.converters.importing.classes import NamedClass
from deeplab2_kmax.converters.importing.coco_json import CocoFile, read_coco_json
from deeplab2_kmax.converters.importing.conversion import Export, ImportRules, Shards, write_records
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.wording import counted

_ANNOTATIONS = "_annotations.coco.json"
# The id of the category that stands for the group of all classes, whose supercategory it is.
_PLACEHOLDER = 0
# Folder of the export -> split.
_SPLITS = {"train": "train", "valid": "val", "test": "test"}


def convert_roboflow(
    dataset: str, folder: str, shards: Shards, rules: ImportRules | None = None, boxes: bool = False
) -> list[str]:
    """Writes one record for each picture of an export.

    Args:
        dataset: path of the descriptor file, or the name of a built-in data set; if there is no such file, it is
            written from the categories. In a descriptor that is there, names find the classes, not category ids.
        folder: the export.
        shards: how the shards are written.
        rules: what the user decides; None for the defaults. That for overlaps is "smaller_on_top".
        boxes: take annotations without a segmentation for the rectangles of their boxes.

    Returns:
        The paths of the shards, in order.

    Raises:
        ConfigError: the descriptor cannot be read or contradicts itself.
        DataError: pictures or annotations are missing, broken or contradict each other (the message names file and
            annotation); or the output folder cannot be written.
    """
    return write_records(read_roboflow(folder, boxes), dataset, rules or ImportRules(), shards)


def read_roboflow(folder: str, boxes: bool = False) -> Export:
    """Reads the annotations and finds the pictures; see `convert_roboflow` for arguments and errors."""
    folders = _folders_of_splits(folder)
    contents = {split: read_coco_json(files.join(path, _ANNOTATIONS), boxes) for split, path in folders.items()}
    _tell_empty(contents)
    return Export(
        converter="roboflow",
        splits={
            split: annotated_images(content, folders[split], empty_images=True) for split, content in contents.items()
        },
        classes=_classes(list(contents.values())),
        annotations={split: [content.path] for split, content in contents.items()},
        source=folder,
        overlaps="smaller_on_top",
        settings={"boxes": boxes},
        root=folder,
    )


def _folders_of_splits(folder: str) -> dict[str, str]:
    """{split: its folder}"""
    there = {split: files.join(folder, name) for name, split in _SPLITS.items()}
    there = {split: path for split, path in there.items() if files.is_folder(path)}
    if not there and files.exists(files.join(folder, _ANNOTATIONS)):
        return {"train": folder}
    if not there:
        raise DataError(
            f"{folder}: expected the folders {', '.join(_SPLITS)} or one of them, each with {_ANNOTATIONS}, got none of"
            " them; unpack the export, and give the folder that they lie in"
        )
    for path in there.values():
        if not files.exists(files.join(path, _ANNOTATIONS)):
            raise DataError(
                f"{path}: expected {_ANNOTATIONS}, which is not there; export from Roboflow in the format COCO"
                " segmentation"
            )
    return there


def _classes(contents: Sequence[CocoFile]) -> list[NamedClass]:
    """The classes of all splits, which have to agree, without the one that stands for the group of all."""
    found: dict[int, NamedClass] = {}
    for content in contents:
        for category_id, category in content.categories.items():
            known = found.setdefault(category_id, category)
            if known.name != category.name:
                raise DataError(
                    f"{content.path}: category {category_id} is {category.name!r} here, but {known.name!r} in"
                    f" {contents[0].path}; expected the same categories in all splits of an export"
                )
    used = {category_id for content in contents for category_id in content.used}
    groups = {
        name for content in contents for category_id, name in content.groups.items() if category_id != _PLACEHOLDER
    }
    if _PLACEHOLDER in found and _PLACEHOLDER not in used and found[_PLACEHOLDER].name in groups:
        del found[_PLACEHOLDER]
    return list(found.values())


def _tell_empty(contents: Mapping[str, CocoFile]) -> None:
    """The format cannot tell pictures that show nothing from those that nobody has labelled yet."""
    for split, content in contents.items():
        empty = len(content.images) - len(content.regions)
        if empty:
            print(f"{split}: {empty} of {counted(len(content.images), 'picture')} without annotations, taken for null")


def _define_flags() -> None:
    flags.DEFINE_string("folder", None, "Folder of the unpacked export.", required=True)
    flags.DEFINE_boolean("boxes", False, "Take annotations without a segmentation for rectangles.")
    command_line.define_import_flags()


if __name__ == "__main__":
    _define_flags()
    command_line.convert_by_flags(convert_roboflow, __doc__)
