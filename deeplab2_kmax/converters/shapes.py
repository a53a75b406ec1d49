"""Makes the `shapes` data set: drawn scenes, written as ordinary TFRecords.

python -m deeplab2_kmax.converters.shapes --output_dir=data/shapes --num_train=512 --num_val=64 --size=97 --seed=0
"""

from __future__ import annotations

import functools
import io
import os

from absl import flags
from PIL import Image

from deeplab2_kmax.converters import command_line
from deeplab2_kmax.converters.shapes_data.scenes import MIN_SIZE, generate_shapes
from deeplab2_kmax.converters.writing.sharded_output import Origin, ShardedOutput, Split
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.programs import run_program
from deeplab2_kmax.records import schema

__all__ = ["convert_shapes", "generate_shapes"]

# Scenes for validation are numbered from here on, so they stay the same whatever the number of training scenes.
FIRST_VAL_INDEX = 1 << 30


def convert_shapes(
    output_dir: str,
    num_train: int = 512,
    num_val: int = 64,
    size: int = 97,
    seed: int = 0,
    treat_crowd_as_ignore: bool = False,
    num_shards: int | None = None,
    num_processes: int | None = None,
    beam: str | None = None,
) -> list[str]:
    """Draws the scenes and writes them to `output_dir`; the same arguments give the same records.

    Args:
        output_dir: where `train-XXXXX-of-XXXXX.tfrecord` and `val-...` go; made if need be.
        num_train: training images; 0 leaves the split out.
        num_val: validation images, none of them among the training images; 0 leaves the split out.
        size: height and width in pixels, at least 33.
        seed: which data set; any number from 0.
        treat_crowd_as_ignore: label crowd regions void instead of thing class with instance 0.
        num_shards: files a split; None chooses by the number of images.
        num_processes: None chooses by the number of images and cores.
        beam: options of an Apache Beam pipeline that does the work instead of processes here, see `beam_shards`.

    Returns:
        The paths of the shards, in order.

    Raises:
        DataError: a number out of range, or an output directory that cannot be written.
    """
    if size < MIN_SIZE:
        raise DataError(f"shapes: expected a size of at least {MIN_SIZE} pixels, came {size}")
    if min(num_train, num_val, seed) < 0 or num_train + num_val == 0:
        raise DataError(
            f"shapes: expected num_train, num_val and seed from 0 and at least one image, "
            f"came num_train={num_train} num_val={num_val} seed={seed}"
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
    image, label = generate_shapes(seed, index, size)
    if treat_crowd_as_ignore:
        descriptor = load_dataset("shapes")
        for class_id in descriptor.thing_class_ids:
            label[label == class_id * descriptor.label_divisor] = descriptor.void_id
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, format="png")
    return schema.encode_record(encoded.getvalue(), "png", f"{prefix}_{index - first:06d}", label)


def _define_flags() -> None:
    flags.DEFINE_integer("num_train", 512, "Training images.", lower_bound=0)
    flags.DEFINE_integer("num_val", 64, "Validation images.", lower_bound=0)
    flags.DEFINE_integer("size", 97, "Height and width in pixels.", lower_bound=MIN_SIZE)
    flags.DEFINE_integer("seed", 0, "Another seed gives another data set.", lower_bound=0)
    command_line.define_crowd_flag(False)
    command_line.define_output_flags()
    flags.adopt_module_key_flags(command_line)


def write_example(output_dir: str, size: int, seed: int) -> str:
    """Writes the first validation scene as `example.png` to `output_dir`, to try a model on; returns its path."""
    path = os.path.join(output_dir, "example.png")
    Image.fromarray(generate_shapes(seed, FIRST_VAL_INDEX, size)[0]).save(path)
    return path


def main() -> None:
    """Converts as the flags say."""
    command_line.convert_by_flags(convert_shapes)
    print("example picture:", write_example(**command_line.flag_values(write_example)))


if __name__ == "__main__":
    _define_flags()
    run_program(main, __doc__)
