"""Converts Cityscapes with its fine annotations to TFRecords.

python -m deeplab2_kmax.converters.cityscapes --cityscapes_root=$CITYSCAPES_ROOT --output_dir=$OUTPUT_DIR

Folder layout, as Cityscapes' archives unpack, with the files that cityscapesscripts makes:
    leftImg8bit/{train,val,test}/CITY/*_leftImg8bit.png
    gtFine/cityscapes_panoptic_{train,val}_trainId.json   \\ csCreatePanopticImgs --use-train-id
    gtFine/cityscapes_panoptic_{train,val}_trainId/*.png  /
    gtFine/{train,val}/CITY/*_gtFine_labelTrainIds.png      csCreateTrainIdLabelImgs (--nocreate_panoptic_data)
A split whose image folder is missing is left out. "test" is written without labels.
"""

from __future__ import annotations

import functools
import os.path
from collections.abc import Mapping

from absl import flags

from deeplab2_kmax import files
from deeplab2_kmax.converters import command_line
from deeplab2_kmax.converters.panoptic_json import read_annotations
from deeplab2_kmax.converters.reading import labelled_images
from deeplab2_kmax.converters.reading.images import image_files
from deeplab2_kmax.converters.reading.labelled_images import LabelledImage, source_files
from deeplab2_kmax.converters.reading.panoptic_png import PanopticFormat
from deeplab2_kmax.converters.reading.semantic_png import semantic_record
from deeplab2_kmax.converters.writing.sharded_output import Origin, ShardedOutput, Split
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.wording import counted

_IMAGES, _LABELS = "leftImg8bit", "gtFine"
_SPLITS = {split: f"{_IMAGES}/{split}" for split in ("train", "val", "test")}
_UNLABELED_SPLITS = ("test",)
_PUBLISHED_SIZES = {"train": 2975, "val": 500, "test": 1525}
# As many as DeepLab2's converter writes.
_NUM_SHARDS = 10


def convert_cityscapes(
    cityscapes_root: str,
    output_dir: str,
    create_panoptic_data: bool = True,
    treat_crowd_as_ignore: bool = True,
    num_shards: int | None = _NUM_SHARDS,
    num_processes: int | None = None,
    beam: str | None = None,
) -> list[str]:
    """Converts every split below `cityscapes_root` to records that are equal to DeepLab2's.

    Args:
        cityscapes_root: the folder with leftImg8bit and gtFine.
        output_dir: the folder for `train-XXXXX-of-XXXXX.tfrecord` and so on; made where missing.
        create_panoptic_data: whether to write panoptic labels; if False, the PNGs of train ids are stored as semantic
            labels.
        treat_crowd_as_ignore: label crowd regions as void, instead of as their thing class with instance id 0.
        num_shards, num_processes, beam: how the shards are written, see `ShardedOutput`.

    Returns:
        The paths of the shards, in order.

    Raises:
        DataError: the source is incomplete, broken or contradicts itself (the message names file and segment), or the
            output folder cannot be written. `ShardedOutput` says what is kept then.
    """
    descriptor = load_dataset("cityscapes_panoptic")
    if create_panoptic_data:
        # With --use-train-id, categories are the train ids, which are the class ids here.
        source = PanopticFormat(descriptor, category_is="id", treat_crowd_as_ignore=treat_crowd_as_ignore)
        make_record = functools.partial(labelled_images.panoptic_record, image_format="png", source=source)
        settings = {"create_panoptic_data": True, "treat_crowd_as_ignore": treat_crowd_as_ignore}
    else:
        make_record = functools.partial(semantic_record, image_format="png", descriptor=descriptor)
        settings = {"create_panoptic_data": False}
    with ShardedOutput(output_dir, num_shards, num_processes, beam) as output:
        splits = []
        for name in labelled_images.present_splits("cityscapes_root", cityscapes_root, _SPLITS):
            images = find_images(cityscapes_root, name, create_panoptic_data)
            annotations = (_json_path(cityscapes_root, name),) if create_panoptic_data and images[0].label_path else ()
            splits.append(Split(name, images, make_record, source_files, annotations))
            _say_if_incomplete(splits[-1])
        return output.write(splits, Origin("cityscapes", descriptor, settings, cityscapes_root))


def find_images(cityscapes_root: str, split: str, create_panoptic_data: bool = True) -> list[LabelledImage]:
    """The images of a split, sorted by city and name; those of "train" and "val" with their labels.

    Raises:
        DataError: there are no images, or a label is missing; the message says which tool makes it.
    """
    folder = files.join(cityscapes_root, _SPLITS[split])
    images = image_files(folder, f"_{_IMAGES}.png", in_subfolders=True)
    if split in _UNLABELED_SPLITS:
        return labelled_images.without_labels(images)
    if not create_panoptic_data:
        return _with_train_ids(images, files.join(cityscapes_root, _LABELS, split))
    json_path = _json_path(cityscapes_root, split)
    if not files.exists(json_path):
        raise DataError(f"{json_path}: no such file; cityscapesscripts makes it: csCreatePanopticImgs --use-train-id")
    return labelled_images.with_panoptic_pngs(
        images, read_annotations(json_path, "image_id"), json_path, os.path.splitext(json_path)[0]
    )


def _json_path(cityscapes_root: str, split: str) -> str:
    return files.join(cityscapes_root, _LABELS, f"cityscapes_panoptic_{split}_trainId.json")


def _with_train_ids(images: Mapping[str, str], label_folder: str) -> list[LabelledImage]:
    """Each image with the PNG of its train ids."""
    found = []
    for name, image_path in images.items():
        city = os.path.basename(os.path.dirname(image_path))
        label_path = files.join(label_folder, city, f"{name}_{_LABELS}_labelTrainIds.png")
        if not files.exists(label_path):
            raise DataError(f"{label_path}: no such file; cityscapesscripts makes it: csCreateTrainIdLabelImgs")
        found.append(LabelledImage(name, image_path, label_path))
    return found


def _say_if_incomplete(split: Split) -> None:
    """Prints a note if some images of the published data set are missing; a part of it may be meant."""
    published = _PUBLISHED_SIZES[split.name]
    if len(split.items) != published:
        print(f"split {split.name}: {counted(len(split.items), 'image')} found; the published split has {published}")


def _define_flags() -> None:
    flags.DEFINE_string("cityscapes_root", None, "Folder with leftImg8bit and gtFine.", required=True)
    flags.DEFINE_boolean(
        "create_panoptic_data", True, "Write panoptic labels; otherwise the PNGs of train ids as semantic labels."
    )
    command_line.define_shared_flags(num_shards=_NUM_SHARDS)


if __name__ == "__main__":
    _define_flags()
    command_line.convert_by_flags(convert_cityscapes, __doc__)
