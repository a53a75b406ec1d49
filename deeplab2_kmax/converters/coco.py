"""Converts COCO with its panoptic annotations to TFRecords.

python -m deeplab2_kmax.converters.coco --coco_root=$COCO_ROOT --output_dir=$OUTPUT_DIR

Folder layout, as COCO's archives unpack:
    train2017/*.jpg   val2017/*.jpg   test2017/*.jpg (without labels)
    annotations/panoptic_{train,val}2017.json
    annotations/panoptic_{train,val}2017/*.png
A split whose image folder is absent is left out.
"""

from __future__ import annotations

import functools
import inspect
import os
from typing import Any, NamedTuple

from absl import app, flags, logging

from deeplab2_kmax.converters.coco_labels import read_annotations, read_panoptic_label
from deeplab2_kmax.converters.sharded_output import ShardedOutput, Split
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.errors import DataError, user_errors_as_one_line
from deeplab2_kmax.input_pipeline import schema

_SPLITS = {"train": "train2017", "val": "val2017", "test": "test2017"}
_UNLABELLED_SPLITS = ("test",)


class LabelledImage(NamedTuple):
    """Where one image and its label come from; `png_path` is None in a split without labels."""

    image_path: str
    png_path: str | None
    segments: list[dict[str, Any]]


def convert_coco(
    coco_root: str,
    output_dir: str,
    treat_crowd_as_ignore: bool = True,
    num_shards: int | None = None,
    num_processes: int | None = None,
) -> list[str]:
    """Writes every split found below `coco_root`; equal to what DeepLab2 writes but for the number of shards.

    Args:
        coco_root: the folder with COCO's folders.
        output_dir: where `train-XXXXX-of-XXXXX.tfrecord` and so on go; made if need be.
        treat_crowd_as_ignore: label crowd regions void instead of thing class with instance 0.
        num_shards: files a split; None chooses by the number of images.
        num_processes: None chooses by the number of images and cores.

    Returns:
        The paths of the shards, in order.

    Raises:
        DataError: no split found; annotations, PNGs or images that are missing, broken or disagree (the message names
            file and segment); an output directory that cannot be written. Nothing is left in `output_dir` then.
    """
    with ShardedOutput(output_dir, num_shards, num_processes) as output:
        make_record = functools.partial(coco_record, treat_crowd_as_ignore=treat_crowd_as_ignore)
        splits = [Split(name, find_images(coco_root, name), make_record) for name in _present_splits(coco_root)]
        return output.write(splits)


def find_images(coco_root: str, split: str) -> list[LabelledImage]:
    """The images of a split, by name; those of "train" and "val" each with an annotation.

    Raises:
        DataError: no images, an image without annotation, or one whose PNG is missing.
    """
    image_folder = os.path.join(coco_root, _SPLITS[split])
    names = sorted(name for name in os.listdir(image_folder) if name.endswith(".jpg"))
    if not names:
        raise DataError(f"{image_folder}: expected images *.jpg, came none")
    if split in _UNLABELLED_SPLITS:
        return [LabelledImage(os.path.join(image_folder, name), None, []) for name in names]
    png_folder = os.path.join(coco_root, "annotations", f"panoptic_{_SPLITS[split]}")
    annotations = read_annotations(f"{png_folder}.json")
    pngs = set(os.listdir(png_folder)) if os.path.isdir(png_folder) else set()
    found = []
    for name in names:
        image_path = os.path.join(image_folder, name)
        png_name, segments = annotations.pop(os.path.splitext(name)[0], (None, []))
        if png_name is None:
            raise DataError(f"{image_path}: expected an annotation in {png_folder}.json, came none")
        png_path = os.path.join(png_folder, png_name)
        if png_name not in pngs:
            raise DataError(f"{png_path}: no such file, though {png_folder}.json lists it for {image_path}")
        found.append(LabelledImage(image_path, png_path, segments))
    if annotations:
        logging.warning("%s: left out %d annotations that have no image", f"{png_folder}.json", len(annotations))
    return found


def coco_record(item: LabelledImage, treat_crowd_as_ignore: bool) -> bytes:
    """The serialized tf.train.Example of one image.

    Raises:
        DataError: see `convert_coco`.
    """
    label = None
    if item.png_path is not None:
        label = read_panoptic_label(item.png_path, item.segments, load_dataset("coco_panoptic"), treat_crowd_as_ignore)
    try:
        with open(item.image_path, "rb") as file:
            image_bytes = file.read()
        stem = os.path.splitext(os.path.basename(item.image_path))[0]
        return schema.encode_record(image_bytes, "jpeg", stem, label)
    except OSError as error:
        raise DataError(f"{item.image_path}: cannot read the image: {error.strerror}") from error
    except DataError as error:
        raise DataError(f"{item.image_path}: {error}") from error


def _present_splits(coco_root: str) -> list[str]:
    present = []
    for split, folder in _SPLITS.items():
        if os.path.isdir(os.path.join(coco_root, folder)):
            present.append(split)
        else:
            print(f"split {split}: left out, there is no folder {os.path.join(coco_root, folder)}")
    if not present:
        raise DataError(f"coco_root: expected at least one of the folders {', '.join(_SPLITS.values())} in {coco_root}")
    return present


def _define_flags() -> None:
    flags.DEFINE_string("coco_root", None, "Folder with train2017, val2017 and annotations.", required=True)
    flags.DEFINE_string("output_dir", None, "Folder for the TFRecord shards.", required=True)
    flags.DEFINE_boolean("treat_crowd_as_ignore", True, "Label crowd regions void.")
    flags.DEFINE_integer("num_shards", None, "Files a split; default by the number of images.", lower_bound=1)
    flags.DEFINE_integer("num_processes", None, "Default by the number of images and cores.", lower_bound=1)


def main(unused_argv: list[str]) -> None:
    with user_errors_as_one_line():
        convert_coco(**{name: flags.FLAGS[name].value for name in inspect.signature(convert_coco).parameters})


if __name__ == "__main__":
    _define_flags()
    app.run(main)
