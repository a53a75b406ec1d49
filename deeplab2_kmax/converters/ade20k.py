"""Converts ADE20K with panoptic annotations to TFRecords.

python -m deeplab2_kmax.converters.ade20k --ade20k_root=$ADE20K_ROOT --output_dir=$OUTPUT_DIR

Folder layout, as ADEChallengeData2016 unpacks, with the panoptic files that Mask2Former's
datasets/prepare_ade20k_pan_seg.py makes:
    images/{training,validation}/*.jpg
    ade20k_panoptic_{train,val}.json
    ade20k_panoptic_{train,val}/*.png
A split whose image folder is absent is left out.
"""

from __future__ import annotations

import functools
import os

from absl import flags

from deeplab2_kmax.converters import command_line
from deeplab2_kmax.converters.reading import labelled_images
from deeplab2_kmax.converters.reading.labelled_images import LabelledImage, source_files
from deeplab2_kmax.converters.reading.panoptic_png import PanopticFormat
from deeplab2_kmax.converters.writing.sharded_output import Origin, ShardedOutput, Split
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.programs import run_program

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
    """Writes every split found below `ade20k_root`; equal to what DeepLab2 writes but for the number of shards.

    Categories 0 to 149 become classes 1 to 150; category 255 becomes void. The areas in the JSON are not compared with
    the PNG: in ADE20K things cover stuff that was counted before.

    Args:
        ade20k_root: the folder with images and panoptic annotations.
        output_dir: where `train-XXXXX-of-XXXXX.tfrecord` and `val-...` go; made if need be.
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
    descriptor = load_dataset("ade20k_panoptic")
    source = PanopticFormat(
        descriptor,
        treat_crowd_as_ignore=treat_crowd_as_ignore,
        void_categories=frozenset([_VOID_CATEGORY]),
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
    """The images of a split, by name, each with an annotation.

    Raises:
        DataError: no images, an image without annotation, or one whose PNG is missing.
    """
    images = labelled_images.image_files(os.path.join(ade20k_root, _SPLITS[split]), ".jpg")
    json_path = _json_path(ade20k_root, split)
    return labelled_images.with_panoptic_pngs(images, json_path, os.path.splitext(json_path)[0])


def _json_path(ade20k_root: str, split: str) -> str:
    return os.path.join(ade20k_root, f"ade20k_panoptic_{split}.json")


def _define_flags() -> None:
    flags.DEFINE_string("ade20k_root", None, "Folder with images and ade20k_panoptic_train.", required=True)
    command_line.define_crowd_flag()
    command_line.define_output_flags()
    flags.adopt_module_key_flags(command_line)


def main() -> None:
    """Converts as the flags say."""
    command_line.convert_by_flags(convert_ade20k)


if __name__ == "__main__":
    _define_flags()
    run_program(main, __doc__)
