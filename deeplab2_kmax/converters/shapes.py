"""Makes the data set `shapes`: drawn scenes, written as TFRecords like those of other data sets.

python -m deeplab2_kmax.converters.shapes --output_dir=data/shapes --num_train=4096 --num_val=256 --size=97 --seed=0
"""

from __future__ import annotations

import functools
import io

import numpy as np
from absl import flags
from PIL import Image

from deeplab2_kmax import files
from deeplab2_kmax.converters import command_line
from deeplab2_kmax.converters.shapes_data.scenes import MIN_SIZE, generate_shapes, require_size
from deeplab2_kmax.converters.writing.sharded_output import Origin, ShardedOutput, Split
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.programs import run_program
from deeplab2_kmax.records import schema

__all__ = ["convert_shapes", "generate_shapes"]

# Validation scenes are numbered from here on, so that they stay the same whatever the number of training scenes.
FIRST_VAL_INDEX = 1 << 30


def convert_shapes(
    output_dir: str,
    num_train: int = 4096,
    num_val: int = 256,
    size: int = 97,
    seed: int = 0,
    treat_crowd_as_ignore: bool = False,
    num_shards: int | None = None,
    num_processes: int | None = None,
    beam: str | None = None,
) -> list[str]:
    """Draws the scenes and writes them to `output_dir`; equal arguments give equal records.

    Args:
        output_dir: the folder for `train-XXXXX-of-XXXXX.tfrecord` and `val-...`; made where missing.
        num_train: the number of training images; 0 leaves the split out.
        num_val: the number of validation images, none of which is a training image; 0 leaves the split out.
        size: height and width in pixels, at least 33.
        seed: any number from 0; each gives another data set.
        treat_crowd_as_ignore: label crowd regions as void, instead of as their thing class with instance id 0.
        num_shards, num_processes, beam: how the shards are written, see `ShardedOutput`.

    Returns:
        The paths of the shards, in order.

    Raises:
        DataError: a number is out of range, or the output folder cannot be written.
    """
    require_size(size)
    # From FIRST_VAL_INDEX on, training images would be those of validation.
    is_valid = min(num_train, num_val, seed) >= 0 and 0 < num_train + num_val <= FIRST_VAL_INDEX
    if not is_valid:
        raise DataError(
            f"shapes: expected num_train, num_val and seed to be at least 0, and 1 to {FIRST_VAL_INDEX:,} images, "
            f"got num_train={num_train} num_val={num_val} seed={seed}"
        )
    make_record = functools.partial(_record, seed, size, treat_crowd_as_ignore)
    counts = {"train": (0, num_train), "val": (FIRST_VAL_INDEX, num_val)}
    splits = [
        Split(name, range(first, first + count), functools.partial(make_record, f"shapes_{name}", first))
        for name, (first, count) in counts.items()
        if count
    ]
    settings = {"size": size, "seed": seed, "treat_crowd_as_ignore": treat_crowd_as_ignore}
    with ShardedOutput(output_dir, num_shards, num_processes, beam) as output:
        return output.write(splits, Origin("shapes", load_dataset("shapes"), settings))


def _record(seed: int, size: int, treat_crowd_as_ignore: bool, prefix: str, first: int, index: int) -> bytes:
    """The record of the scene `index`, called by its place in the split, which begins with the scene `first`."""
    image, label = generate_shapes(seed, index, size)
    if treat_crowd_as_ignore:
        descriptor = load_dataset("shapes")
        for class_id in descriptor.thing_class_ids:
            label[label == class_id * descriptor.label_divisor] = descriptor.void_id
    return schema.encode_record(_png(image), "png", f"{prefix}_{index - first:06d}", label)


def write_example(output_dir: str, size: int, seed: int) -> str:
    """Writes the first validation scene as `example.png` to `output_dir`, to try a model on; returns its path."""
    path = files.join(output_dir, "example.png")
    files.write_bytes(path, _png(generate_shapes(seed, FIRST_VAL_INDEX, size)[0]))
    return path


def _png(image: np.ndarray) -> bytes:
    """The content of a PNG file for [H, W, 3] uint8 RGB pixels."""
    encoded = io.BytesIO()
    # Level 1 takes half the time of the usual 6, and for these pictures not a byte more.
    Image.fromarray(image).save(encoded, format="png", compress_level=1)
    return encoded.getvalue()


def _define_flags() -> None:
    flags.DEFINE_integer("num_train", 4096, "Number of training images.", lower_bound=0)
    flags.DEFINE_integer("num_val", 256, "Number of validation images.", lower_bound=0)
    flags.DEFINE_integer("size", 97, "Height and width in pixels.", lower_bound=MIN_SIZE)
    flags.DEFINE_integer("seed", 0, "Each seed gives another data set.", lower_bound=0)
    command_line.define_shared_flags(treat_crowd_as_ignore=False)


def _main() -> None:
    convert_shapes(**command_line.flag_values(convert_shapes))
    print("example picture:", write_example(**command_line.flag_values(write_example)))


if __name__ == "__main__":
    _define_flags()
    run_program(_main, __doc__)
