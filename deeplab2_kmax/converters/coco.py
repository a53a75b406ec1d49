"""Converts COCO with its panoptic annotations to TFRecords.

python -m deeplab2_kmax.converters.coco --coco_root=$COCO_ROOT --output_dir=$OUTPUT_DIR

Folder layout, as COCO's archives unpack:
    train2017/*.jpg   val2017/*.jpg   test2017/*.jpg (without labels)
    annotations/panoptic_{train,val}2017.json
    annotations/panoptic_{train,val}2017/*.png
A split whose image folder is missing is left out.
"""

from __future__ import annotations

import functools
import os.path

from absl import flags

from deeplab2_kmax import files
from deeplab2_kmax.converters import command_line
from deeplab2_kmax.converters.panoptic_json import read_annotations
from deeplab2_kmax.converters.reading import labelled_images
from deeplab2_kmax.converters.reading.images import image_files
from deeplab2_kmax.converters.reading.labelled_images import LabelledImage, source_files
from deeplab2_kmax.converters.reading.panoptic_png import PanopticFormat
from deeplab2_kmax.converters.writing.sharded_output import Origin, ShardedOutput, Split
from deeplab2_kmax.datasets import load_dataset

_SPLITS = {"train": "train2017", "val": "val2017", "test": "test2017"}
_UNLABELED_SPLITS = ("test",)


def convert_coco(
    coco_root: str,
    output_dir: str,
    treat_crowd_as_ignore: bool = True,
    num_shards: int | None = None,
    num_processes: int | None = None,
    beam: str | None = None,
) -> list[str]:
    """Converts every split below `coco_root` to records that are equal to DeepLab2's; there may be fewer shards.

    Args:
        coco_root: the folder with COCO's folders.
        output_dir: the folder for `train-XXXXX-of-XXXXX.tfrecord` and so on; made where missing.
        treat_crowd_as_ignore: label crowd regions as void, instead of as their thing class with instance id 0.
        num_shards, num_processes, beam: how the shards are written, see `ShardedOutput`.

    Returns:
        The paths of the shards, in order.

    Raises:
        DataError: the source is incomplete, broken or contradicts itself (the message names file and segment), or the
            output folder cannot be written. `ShardedOutput` says what is kept then.
    """
    descriptor = load_dataset("coco_panoptic")
    source = PanopticFormat(descriptor, treat_crowd_as_ignore=treat_crowd_as_ignore)
    make_record = functools.partial(labelled_images.panoptic_record, image_format="jpeg", source=source)
    origin = Origin("coco", descriptor, {"treat_crowd_as_ignore": treat_crowd_as_ignore}, coco_root)
    with ShardedOutput(output_dir, num_shards, num_processes, beam) as output:
        splits = [
            Split(name, find_images(coco_root, name), make_record, source_files, _annotations(coco_root, name))
            for name in labelled_images.present_splits("coco_root", coco_root, _SPLITS)
        ]
        return output.write(splits, origin)


def find_images(coco_root: str, split: str) -> list[LabelledImage]:
    """The images of a split, sorted by name; those of "train" and "val" with their annotations.

    Raises:
        DataError: there are no images, or one of them has no annotation or no PNG.
    """
    images = image_files(files.join(coco_root, _SPLITS[split]), ".jpg")
    if split in _UNLABELED_SPLITS:
        return labelled_images.without_labels(images)
    (json_path,) = _annotations(coco_root, split)
    return labelled_images.with_panoptic_pngs(
        images, read_annotations(json_path), json_path, os.path.splitext(json_path)[0]
    )


def _annotations(coco_root: str, split: str) -> tuple[str, ...]:
    if split in _UNLABELED_SPLITS:
        return ()
    return (files.join(coco_root, "annotations", f"panoptic_{_SPLITS[split]}.json"),)


def _define_flags() -> None:
    flags.DEFINE_string("coco_root", None, "Folder with train2017, val2017 and annotations.", required=True)
    command_line.define_shared_flags()


if __name__ == "__main__":
    _define_flags()
    command_line.convert_by_flags(convert_coco, __doc__)
