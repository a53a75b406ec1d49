r"""Converts a data set in YOLO's format for segmentation to TFRecords.

    deeplab2-kmax convert yolo --dataset=my/dataset.json --data_yaml=my/yolo/data.yaml --output_dir=my/records

    my/yolo/data.yaml                   `names`, and the folders or lists of pictures of `train`, `val` and `test`
    my/yolo/images/train/NAME.jpg       any picture that `predict` reads
    my/yolo/labels/train/NAME.txt       a line for each thing: class x1 y1 x2 y2 ..., as shares of width and height
Each split of data.yaml becomes a split of the records. Its folders start at `path`, or where there is nothing, at that
of data.yaml, and include those below. The labels of a picture lie where the last `images` in its path is `labels`,
otherwise beside it. A picture with an empty label file, or without one, has nothing in it; how many have none is
printed.

All classes are things but those of --stuff_classes; the outline with fewer pixels is on top. Lines of boxes (5 numbers)
are refused, as boxes say nothing about pixels, and so are data sets of keypoints.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from absl import flags

from deeplab2_kmax import files
from deeplab2_kmax.converters import command_line
from deeplab2_kmax.converters.importing.classes import NamedClass
from deeplab2_kmax.converters.importing.conversion import Export, ImportRules, Shards, write_records
from deeplab2_kmax.converters.importing.document import Entry, load_yaml_object, quoted, read_annotation_text
from deeplab2_kmax.converters.importing.regions import AnnotatedImage, Polygons, Region
from deeplab2_kmax.converters.reading.images import list_folder
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.names import without_ending
from deeplab2_kmax.pictures import PICTURE_ENDINGS
from deeplab2_kmax.wording import counted, some_of

_SPLITS = ("train", "val", "test")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
# Outlines may run out of the picture by the rounding of a tool.
_OUTSIDE = 0.01
_BOX = 5
# Tools put it beside the labels.
_CLASS_LIST = "classes.txt"
_NAMED = 5


class RelativePolygon(NamedTuple):
    """The area within an outline: x and y of its points in turn, as shares of width and height."""

    outline: Sequence[float]

    def mask(self, height: int, width: int, where: str) -> np.ndarray:
        """See `Shape`."""
        sides = (width, height)
        return Polygons([[share * sides[k % 2] for k, share in enumerate(self.outline)]]).mask(height, width, where)


def convert_yolo(dataset: str, data_yaml: str, shards: Shards, rules: ImportRules = ImportRules()) -> list[str]:
    """Writes one record for each picture of the splits of a data set.

    Args:
        dataset: path of the descriptor file. If there is no such file, it is written from the `names`.
        data_yaml: the YAML file of the data set.
        shards: where and how the shards are written.
        rules: what becomes of the regions.

    Returns:
        The paths of the shards, in order.

    Raises:
        ConfigError: the descriptor cannot be read or contradicts itself.
        DataError: the YAML, pictures or labels are missing, broken or contradict each other (the message names file and
            line); or the output folder cannot be written. The shards that are finished by then are kept for the next
            run, see `ShardedOutput`.
    """
    return write_records(read_yolo(data_yaml), dataset, rules, shards)


def read_yolo(data_yaml: str) -> Export:
    """Reads the splits of a data set, and prints what has no labels.

    Raises:
        DataError: the YAML or a label cannot be read, is broken or of another format, or files are missing.
    """
    content = load_yaml_object(data_yaml)
    if "kpt_shape" in content:
        raise DataError(f"{content.place('kpt_shape')}: expected a data set of outlines, got one of keypoints")
    names = _names(content)
    roots = _roots(content)
    splits = {}
    for split in _SPLITS:
        if split in content:
            pictures = _pictures(content, split, roots)
            if pictures:
                splits[split] = _images(pictures, names, f"{content.place(split)}")
    if not splits:
        raise DataError(f"{data_yaml}: expected the pictures of {', '.join(_SPLITS)}, got none")
    _tell_of_labels_without_picture([image for images in splits.values() for image in images], data_yaml)
    classes = [NamedClass(name, source_id=number) for number, name in enumerate(names)]
    annotations = {split: [data_yaml] for split in splits}
    return Export("yolo", splits, classes, annotations, data_yaml, "smaller_on_top", root=files.parent(data_yaml))


def _names(content: Entry) -> list[str]:
    """The names of the classes, by their numbers from 0 on."""
    value, place = content.raw("names"), content.place("names")
    if isinstance(value, dict):
        if set(value) != set(range(len(value))) or any(isinstance(key, bool) for key in value):
            raise DataError(f"{place}: expected the numbers 0, 1, 2, ... as keys, got {some_of(value, _NAMED)}")
        value = [value[number] for number in range(len(value))]
    if not isinstance(value, list) or not value:
        raise DataError(f"{place}: expected a list of names of classes, got {quoted(value)}")
    for number, name in enumerate(value):
        # YAML reads an unquoted no as false.
        if isinstance(name, bool) or not isinstance(name, (str, int)) or not str(name).strip():
            raise DataError(f"{place}[{number}]: expected a name, got {quoted(name)}; write names between quotes")
    count = content.whole("nc", len(value))
    if count != len(value):
        raise DataError(f"{content.place('nc')}: expected the number of names, {len(value)}, got {count}")
    return [str(name).strip() for name in value]


def _roots(content: Entry) -> list[str]:
    """The folders where those of the splits may start: `path`, and the folder of the YAML."""
    here = files.parent(content.where) or "."
    path = content.text("path", "").replace("\\", "/")
    return [files.join(here, path), here] if path else [here]


def _pictures(content: Entry, split: str, roots: Sequence[str]) -> list[str]:
    """The paths of the pictures of a split; none, and a line on the terminal, if a test split is not there."""
    value, found = content.raw(split), []
    for number, name in enumerate(value if isinstance(value, list) else [value]):
        place = f"{content.place(split)}[{number}]" if isinstance(value, list) else content.place(split)
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{place}: expected a folder or a list of pictures, got {quoted(name)}")
        path = _existing(name.strip().replace("\\", "/"), roots)
        if path is None and split == "test":
            print(f"split test: left out, there is no {quoted(name)} in {roots[0]}")
        elif path is None:
            raise DataError(f"{place}: expected a folder or a list of pictures in {roots[0]}, got {quoted(name)}")
        else:
            found += _below(path) if files.is_folder(path) else _listed(path, roots)
    if not found and split != "test":
        raise DataError(f"{content.place(split)}: expected pictures, got {quoted(value)}, where there are none")
    return found


def _existing(name: str, roots: Sequence[str]) -> str | None:
    # Some tools write "../train/images" where "train/images" is meant.
    names = [name, name[3:]] if name.startswith("../") else [name]
    paths = [files.normalize(files.join(root, each)) for root in roots for each in names]
    return next((path for path in paths if files.exists(path)), None)


def _below(folder: str) -> list[str]:
    """The pictures of a folder and of those below."""
    found = []
    for name in list_folder(folder):
        path = files.join(folder, name)
        if files.is_folder(path):
            found += _below(path)
        elif os.path.splitext(name)[1].lower() in PICTURE_ENDINGS:
            found.append(path)
    return found


def _listed(path: str, roots: Sequence[str]) -> list[str]:
    """The pictures of a list, one a line, which start at the folder of the list or at those of the data set."""
    found = []
    for number, line in enumerate(read_annotation_text(path).splitlines(), start=1):
        if line.strip():
            picture = _existing(line.strip().replace("\\", "/"), [files.parent(path), *roots])
            if picture is None or files.is_folder(picture):
                raise DataError(f"{path}: line {number}: expected a picture, got {quoted(line)}, which is not there")
            found.append(picture)
    return found


def _images(pictures: Sequence[str], names: Sequence[str], where: str) -> list[AnnotatedImage]:
    """The pictures of a split with their outlines."""
    label_paths = [_label_path(picture) for picture in pictures]
    listed: dict[str, set[str]] = {}
    for folder in {files.parent(path) for path in label_paths}:
        listed[folder] = set(list_folder(folder)) if files.is_folder(folder) else set()
    there = [os.path.basename(path) in listed[files.parent(path)] for path in label_paths]
    if not any(there):
        raise DataError(f"{where}: expected label files such as {label_paths[0]}, got none")
    if not all(there):
        without = f"{there.count(False)} of {counted(len(there), 'picture')} without a label file"
        print(f"{where}: {without}, so nothing is in them")
    found = []
    for picture, label_path, has_labels in zip(pictures, label_paths, there):
        name = without_ending(os.path.basename(picture))
        regions = _regions(label_path, names) if has_labels else []
        found.append(AnnotatedImage(name, picture, regions, label_path, None, (label_path,) if has_labels else ()))
    return found


def _label_path(picture: str) -> str:
    before, found, after = picture.replace(os.sep, "/").rpartition("/images/")
    path = f"{before}/labels/{after}" if found else picture
    return os.path.splitext(path)[0] + ".txt"


def _regions(path: str, names: Sequence[str]) -> list[Region]:
    found = []
    for number, line in enumerate(read_annotation_text(path, may_be_empty=True).splitlines(), start=1):
        if line.strip():
            found.append(_region(line.split(), names, f"{path}: line {number}"))
    return found


def _region(words: Sequence[str], names: Sequence[str], where: str) -> Region:
    for word in words:
        if not _NUMBER.fullmatch(word):
            raise DataError(f"{where}: expected numbers, got {quoted(word)}")
    if len(words) == _BOX:
        raise DataError(
            f"{where}: expected an outline, class x1 y1 x2 y2 ..., got a box of {_BOX} numbers; export the data set for"
            " segmentation, or outline its things"
        )
    if len(words) % 2 == 0 or len(words) < _BOX:
        raise DataError(f"{where}: expected a class, and x and y of each point, got {counted(len(words), 'number')}")
    number, *outline = (float(word) for word in words)
    if number not in range(len(names)):
        raise DataError(f"{where}: expected a class from 0 to {len(names) - 1}, as data.yaml names, got {words[0]}")
    for share in outline:
        if not -_OUTSIDE <= share <= 1 + _OUTSIDE:
            raise DataError(f"{where}: expected shares of width and height, 0 to 1, got {share:g}")
    return Region(names[int(number)], RelativePolygon(outline), where)


def _tell_of_labels_without_picture(images: Sequence[AnnotatedImage], data_yaml: str) -> None:
    used = {path for image in images for path in image.label_paths}
    folders = sorted({files.parent(path) for path in used})
    there = [files.join(folder, name) for folder in folders for name in list_folder(folder) if name.endswith(".txt")]
    unused = [path for path in there if path not in used and os.path.basename(path) != _CLASS_LIST]
    if unused:
        print(
            f"{data_yaml}: {counted(len(unused), 'label file')} of no picture of the splits: {some_of(unused, _NAMED)}"
        )


def _define_flags() -> None:
    flags.DEFINE_string("data_yaml", None, "YAML file of the data set.", required=True)
    command_line.define_import_flags()


if __name__ == "__main__":
    _define_flags()
    command_line.convert_by_flags(convert_yolo, __doc__)
