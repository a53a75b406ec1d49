"""Converts ADE20K with panoptic annotations to TFRecords.

python -m deeplab2_kmax.converters.ade20k --ade20k_root=$ADE20K_ROOT --output_dir=$OUTPUT_DIR

Folder layout, as ADEChallengeData2016 unpacks, with the panoptic files that Mask2Former's
datasets/prepare_ade20k_pan_seg.py makes:
    images/{training,validation}/*.jpg
    ade20k_panoptic_{train,val}.json
    ade20k_panoptic_{train,val}/*.png
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

_SPLITS = {"train": "images/training", "val": "images/validation"}
_VOID_CATEGORY = 255


def convert_ade20k(
    ade20k_root: str,
    output_dir: str,
    treat_crowd_as_ignore: bool = True,
    num_shards: int | None = None,
    num_processes: int | None = None,
    beam: str | None = None,
) -> list[str]:
    """Converts every split below `ade20k_root` to records that are equal to DeepLab2's; there may be fewer shards.

    Categories 0 to 149 become classes 1 to 150; category 255 becomes void.

    Args:
        ade20k_root: the folder with images and panoptic annotations.
        output_dir: the folder for `train-XXXXX-of-XXXXX.tfrecord` and `val-...`; made where missing.
        treat_crowd_as_ignore: label crowd regions as void, instead of as their thing class with instance id 0.
        num_shards, num_processes, beam: how the shards are written, see `ShardedOutput`.

    Returns:
        The paths of the shards, in order.

    Raises:
        DataError: the source is incomplete, broken or contradicts itself (the message names file and segment), or the
            output folder cannot be written. `ShardedOutput` says what is kept then.
    """
    descriptor = load_dataset("ade20k_panoptic")
    source = PanopticFormat(
        descriptor,
        treat_crowd_as_ignore=treat_crowd_as_ignore,
        void_categories=frozenset([_VOID_CATEGORY]),
        # Mask2Former's script counts the pixels of stuff before things cover some of them.
        areas_are_exact=False,
    )
    make_record = functools.partial(labelled_images.panoptic_record, image_format="jpeg", source=source)
    origin = Origin("ade20k", descriptor, {"treat_crowd_as_ignore": treat_crowd_as_ignore}, ade20k_root)
    with ShardedOutput(output_dir, num_shards, num_processes, beam) as output:
        splits = [
            Split(name, find_images(ade20k_root, name), make_record, source_files, (_json_path(ade20k_root, name),))
            for name in labelled_images.present_splits("ade20k_root", ade20k_root, _SPLITS)
        ]
        return output.write(splits, origin)


def find_images(ade20k_root: str, split: str) -> list[LabelledImage]:
    """The images of a split, sorted by name, with their annotations.

    Raises:
        DataError: there are no images, or one of them has no annotation or no PNG.
    """
    images = image_files(files.join(ade20k_root, _SPLITS[split]), ".jpg")
    json_path = _json_path(ade20k_root, split)
    return labelled_images.with_panoptic_pngs(
        images, read_annotations(json_path), json_path, os.path.splitext(json_path)[0]
    )


def _json_path(ade20k_root: str, split: str) -> str:
    return files.join(ade20k_root, f"ade20k_panoptic_{split}.json")


def _define_flags() -> None:
    flags.DEFINE_string("ade20k_root", None, "Folder with images and ade20k_panoptic_train.", required=True)
    command_line.define_shared_flags()


if __name__ == "__main__":
    _define_flags()
    command_line.convert_by_flags(convert_ade20k, __doc__)
