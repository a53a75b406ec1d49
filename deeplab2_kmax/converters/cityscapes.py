"""Converts Cityscapes with its fine annotations to TFRecords.

python -m deeplab2_kmax.converters.cityscapes --cityscapes_root=$CITYSCAPES_ROOT --output_dir=$OUTPUT_DIR

Folder layout, as Cityscapes' archives unpack, with the files that cityscapesscripts makes:
    leftImg8bit/{train,val,test}/CITY/*_leftImg8bit.png
    gtFine/cityscapes_panoptic_{train,val}_trainId.json   \\ csCreatePanopticImgs --use-train-id
    gtFine/cityscapes_panoptic_{train,val}_trainId/*.png  /
    gtFine/{train,val}/CITY/*_gtFine_labelTrainIds.png      csCreateTrainIdLabelImgs (--nocreate_panoptic_data)
A split whose image folder is absent is left out. "test" is written without labels.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping

from absl import flags

from deeplab2_kmax.converters import command_line
from deeplab2_kmax.converters.reading import labelled_images
from deeplab2_kmax.converters.reading.labelled_images import LabelledImage, source_files
from deeplab2_kmax.converters.reading.panoptic_png import PanopticFormat
from deeplab2_kmax.converters.reading.semantic_png import semantic_record
from deeplab2_kmax.converters.writing.sharded_output import Origin, ShardedOutput, Split
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.programs import run_program

_IMAGES, _LABELS = "leftImg8bit", "gtFine"
_SPLITS = {split: f"{_IMAGES}/{split}" for split in ("train", "val", "test")}
_UNLABELLED_SPLITS = ("test",)
_PUBLISHED_SIZES = {"train": 2975, "val": 500, "test": 1525}
# DeepLab2's number.
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
    """Writes every split found below `cityscapes_root`, records equal to DeepLab2's.

    Args:
        cityscapes_root: the folder with leftImg8bit and gtFine.
        output_dir: where `train-XXXXX-of-XXXXX.tfrecord` and so on go; made if need be.
        create_panoptic_data: panoptic labels; False keeps the PNGs of train ids as semantic labels instead.
        treat_crowd_as_ignore: label crowd regions void instead of thing class with instance 0.
        num_shards: files a split; None chooses by the number of images.
        num_processes: None chooses by the number of images and cores.
        beam: options of an Apache Beam pipeline that does the work instead of processes here, see `beam_shards`.

    Returns:
        The paths of the shards, in order.

    Raises:
        DataError: no split found; annotations, PNGs or images that are missing, broken or disagree (the message names
            file and segment); an output directory that cannot be written. What is finished by then is kept for the
            next run, see `ShardedOutput`.
    """
    descriptor = load_dataset("cityscapes_panoptic")
    if create_panoptic_data:
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
    """The images of a split, by city and name; those of "train" and "val" each with a label.

    Raises:
        DataError: no images, or a label that is missing; the message says which tool makes it.
    """
    folder = os.path.join(cityscapes_root, _SPLITS[split])
    images = labelled_images.image_files(folder, f"_{_IMAGES}.png", in_subfolders=True)
    if split in _UNLABELLED_SPLITS:
        return labelled_images.without_labels(images)
    if not create_panoptic_data:
        return _with_train_ids(images, os.path.join(cityscapes_root, _LABELS, split))
    json_path = _json_path(cityscapes_root, split)
    if not os.path.exists(json_path):
        raise DataError(f"{json_path}: no such file; cityscapesscripts makes it: csCreatePanopticImgs --use-train-id")
    return labelled_images.with_panoptic_pngs(images, json_path, os.path.splitext(json_path)[0], image_is="image_id")


def _json_path(cityscapes_root: str, split: str) -> str:
    return os.path.join(cityscapes_root, _LABELS, f"cityscapes_panoptic_{split}_trainId.json")


def _with_train_ids(images: Mapping[str, str], label_folder: str) -> list[LabelledImage]:
    found = []
    for name, image_path in images.items():
        city = os.path.basename(os.path.dirname(image_path))
        label_path = os.path.join(label_folder, city, f"{name}_{_LABELS}_labelTrainIds.png")
        if not os.path.exists(label_path):
            raise DataError(f"{label_path}: no such file; cityscapesscripts makes it: csCreateTrainIdLabelImgs")
        found.append(LabelledImage(name, image_path, label_path))
    return found


def _say_if_incomplete(split: Split) -> None:
    published = _PUBLISHED_SIZES[split.name]
    if len(split.items) != published:
        print(f"split {split.name}: {len(split.items)} images found; the published split has {published}")


def _define_flags() -> None:
    flags.DEFINE_string("cityscapes_root", None, "Folder with leftImg8bit and gtFine.", required=True)
    flags.DEFINE_boolean("create_panoptic_data", True, "Panoptic labels; no: the train id PNGs as semantic labels.")
    command_line.define_crowd_flag()
    command_line.define_output_flags(_NUM_SHARDS)
    flags.adopt_module_key_flags(command_line)


def main() -> None:
    """Converts as the flags say."""
    command_line.convert_by_flags(convert_cityscapes)


if __name__ == "__main__":
    _define_flags()
    run_program(main, __doc__)
