r"""Converts pictures and label PNGs that lie in folders, the user's own data, to TFRecords.

    deeplab2-kmax convert folder --dataset=my/dataset.json --image_folder=my/photos \
        --semantic_folder=my/semantic --instance_folder=my/instances --val_fraction=0.2 --output_dir=my/records

    my/dataset.json           the classes (see docs/your_own_dataset.md)
    my/photos/NAME.jpg        JPEG or PNG
    my/semantic/NAME.png      8 or 16 bit, or palette: the source_id of a class, or void
    my/instances/NAME.png     8 or 16 bit, or palette: instance numbers of things, 0 elsewhere
Without --instance_folder all classes have to be stuff: that is semantic segmentation.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import NamedTuple

from absl import flags

from deeplab2_kmax.converters import command_line
from deeplab2_kmax.converters.reading import label_pngs
from deeplab2_kmax.converters.reading.label_pngs import LabelPngFormat
from deeplab2_kmax.converters.reading.labelled_images import image_record
from deeplab2_kmax.converters.writing.sharded_output import Origin, ShardedOutput, Split
from deeplab2_kmax.datasets import DatasetDescriptor, load_dataset
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.programs import run_program

_IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")
_FIRST_BYTES = {b"\xff\xd8\xff": "jpeg", b"\x89PN": "png"}


class FolderImage(NamedTuple):
    """One picture and its label PNGs; `instance_path` is None where there are none."""

    name: str
    image_path: str
    semantic_path: str
    instance_path: str | None = None


def convert_folder(
    dataset: str,
    image_folder: str,
    semantic_folder: str,
    output_dir: str,
    instance_folder: str | None = None,
    image_suffix: str = "",
    semantic_suffix: str = ".png",
    instance_suffix: str = ".png",
    void_values: Sequence[int] = (),
    no_instance_below: int = 1,
    split: str = "train",
    val_fraction: float = 0.0,
    treat_crowd_as_ignore: bool = False,
    ignore_stuff_instances: bool = False,
    num_shards: int | None = None,
    num_processes: int | None = None,
    beam: str | None = None,
) -> list[str]:
    """Writes one record for each picture.

    Args:
        dataset: path of the descriptor file, or the name of a built-in data set.
        image_folder: pictures, .jpg, .jpeg or .png.
        semantic_folder: a PNG `<name of the picture><semantic_suffix>` for each; its numbers are source ids.
        output_dir: where `<split>-XXXXX-of-XXXXX.tfrecord` go; made if need be.
        instance_folder: a PNG `<name of the picture><instance_suffix>` for each; None where all classes are stuff.
        image_suffix: what the files of pictures end with, which is no part of their names; empty: .jpg, .jpeg or .png.
        semantic_suffix: see there.
        instance_suffix: see there.
        void_values: numbers in semantic PNGs that mean void; none: the descriptor's ignore label.
        no_instance_below: smaller numbers in instance PNGs mean no instance, as 0 does.
        split: what the names of the shards begin with.
        val_fraction: this share of the pictures, spread evenly over their sorted names, goes to the split "val".
        treat_crowd_as_ignore: pixels of things with instance number 0 become void instead of a crowd.
        ignore_stuff_instances: drop instance numbers on stuff instead of refusing them.
        num_shards: files a split; None chooses by the number of images.
        num_processes: None chooses by the number of images and cores.
        beam: options of an Apache Beam pipeline that does the work instead of processes here, see `beam_shards`.

    Returns:
        The paths of the shards, in order.

    Raises:
        ConfigError: the descriptor cannot be read or does not make sense.
        DataError: pictures or labels that are missing, broken or disagree (the message names the file); things without
            an instance folder; an output directory that cannot be written. What is finished by then is kept for the
            next run, see `ShardedOutput`.
    """
    descriptor = load_dataset(dataset)
    if instance_folder is None:
        _require_stuff_only(descriptor, dataset)
    images = find_images(image_folder, semantic_folder, instance_folder, image_suffix, semantic_suffix, instance_suffix)
    source = LabelPngFormat(
        descriptor,
        _numbers(void_values) or frozenset([descriptor.ignore_label]),
        treat_crowd_as_ignore,
        ignore_stuff_instances,
        no_instance_below,
    )
    _require_void_is_no_class(source)
    make_record = functools.partial(folder_record, source=source)
    settings = {
        "void_values": sorted(source.void_values),
        "treat_crowd_as_ignore": treat_crowd_as_ignore,
        "ignore_stuff_instances": ignore_stuff_instances,
        "no_instance_below": no_instance_below,
    }
    with ShardedOutput(output_dir, num_shards, num_processes, beam) as output:
        splits = [Split(*each, make_record, source_files) for each in _splits(images, split, val_fraction)]
        return output.write(splits, Origin("folder", descriptor, settings, image_folder))


def source_files(item: FolderImage) -> list[str]:
    """The files that a record is made from."""
    return [path for path in item[1:] if path is not None]


def folder_record(item: FolderImage, source: LabelPngFormat) -> bytes:
    """The serialized tf.train.Example of a picture and its label PNGs.

    Raises:
        DataError: a file that is broken, or files that disagree; the message names the file.
    """
    semantic = label_pngs.read_id_png(item.semantic_path)
    instances = None if item.instance_path is None else label_pngs.read_id_png(item.instance_path)
    where = " with ".join(filter(None, [item.semantic_path, item.instance_path]))
    return image_record(
        item, image_format(item.image_path), label_pngs.panoptic_label(semantic, instances, source, where)
    )


def find_images(
    image_folder: str,
    semantic_folder: str,
    instance_folder: str | None = None,
    image_suffix: str = "",
    semantic_suffix: str = ".png",
    instance_suffix: str = ".png",
) -> list[FolderImage]:
    """The pictures of a folder, sorted by name, each with its label PNGs; see `convert_folder`.

    Raises:
        DataError: a folder that cannot be read, no pictures, two of one name, or a label that is missing.
    """
    pictures = picture_files(image_folder, image_suffix)
    semantic = _labels(pictures, semantic_folder, semantic_suffix)
    instances = _labels(pictures, instance_folder, instance_suffix) if instance_folder else dict.fromkeys(pictures)
    return [FolderImage(name, path, semantic[name], instances[name]) for name, path in pictures.items()]


def picture_files(folder: str, suffix: str = "") -> dict[str, str]:
    """The pictures of a folder by name without `suffix`, sorted; empty: .jpg, .jpeg and .png in any case.

    Raises:
        DataError: a folder that cannot be read, no pictures, or two of one name.
    """
    pictures: dict[str, str] = {}
    for file in _files(folder):
        name, ending = os.path.splitext(file)
        if suffix:
            name, ending = file[: -len(suffix)], file[-len(suffix) :]
        if ending == suffix if suffix else ending.lower() in _IMAGE_ENDINGS:
            path = os.path.join(folder, file)
            if name in pictures:
                raise DataError(f"{path}: expected picture names that differ, {pictures[name]} has the same")
            pictures[name] = path
    if not pictures:
        raise DataError(f"{folder}: expected pictures (*{suffix or ', *'.join(_IMAGE_ENDINGS)}), came none")
    return pictures


def _files(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise DataError(f"{folder}: cannot read the folder: {error.strerror}") from error


def _labels(pictures: dict[str, str], folder: str, suffix: str) -> dict[str, str]:
    there = set(_files(folder))
    for name, picture in pictures.items():
        if name + suffix not in there:
            raise DataError(f"{os.path.join(folder, name + suffix)}: no such file; expected it as label of {picture}")
    return {name: os.path.join(folder, name + suffix) for name in pictures}


def image_format(path: str) -> str:
    """ "jpeg" or "png" by the first bytes of the file, which its name may contradict.

    Raises:
        DataError: the file is neither, or cannot be read.
    """
    try:
        with open(path, "rb") as file:
            first = file.read(3)
    except OSError as error:
        raise DataError(f"{path}: cannot read the picture: {error.strerror}") from error
    if first not in _FIRST_BYTES:
        raise DataError(f"{path}: expected a JPEG or PNG file, its first bytes are {first!r}")
    return _FIRST_BYTES[first]


def _require_stuff_only(descriptor: DatasetDescriptor, dataset: str) -> None:
    things = [c.name for c in descriptor.classes if c.is_thing]
    if things:
        raise DataError(
            f"instance_folder: {dataset} has things ({', '.join(things[:5])}{', ...' if things[5:] else ''}), whose"
            " instances are told apart by instance PNGs; give --instance_folder, or say is_thing: false there to train"
            " on classes alone"
        )


def _numbers(void_values: Sequence[int | str]) -> frozenset[int]:
    try:
        return frozenset(map(int, void_values))
    except ValueError as error:
        raise DataError(f"void_values: expected whole numbers, such as 0,255; came {','.join(void_values)}") from error


def _require_void_is_no_class(source: LabelPngFormat) -> None:
    for value in sorted(source.void_values & source.descriptor.by_source_id.keys()):
        name = source.descriptor.by_source_id[value].name
        raise DataError(
            f"void_values: expected numbers that are no class, came {value}, the source_id of {name!r}; by default the"
            " ignore_label of the descriptor means void"
        )


def _splits(images: list[FolderImage], split: str, val_fraction: float) -> list[tuple[str, list[FolderImage]]]:
    """The images of each split that gets any. Every run on the same names splits alike."""
    if not 0 <= val_fraction < 1:
        raise DataError(f"val_fraction: expected a share from 0 to below 1, came {val_fraction:g}")
    if val_fraction and split == "val":
        raise DataError("val_fraction: expected none where the split itself is val")
    shares = [int((place + 1) * val_fraction + 1e-9) for place in range(len(images))]
    held_out = [share > before for share, before in zip(shares, [0, *shares])]
    chosen = {
        split: [image for image, is_held_out in zip(images, held_out) if not is_held_out],
        "val": [image for image, is_held_out in zip(images, held_out) if is_held_out],
    }
    return [(name, items) for name, items in chosen.items() if items]


def _define_flags() -> None:
    flags.DEFINE_string("dataset", None, "Descriptor file of the classes, or a built-in data set.", required=True)
    flags.DEFINE_string("image_folder", None, "Folder of pictures (JPEG or PNG).", required=True)
    flags.DEFINE_string("semantic_folder", None, "Folder of semantic PNGs: source_id of a class.", required=True)
    flags.DEFINE_string("instance_folder", None, "Folder of instance PNGs; none where all classes are stuff.")
    flags.DEFINE_string("image_suffix", "", "What the files of pictures end with after the name; default: any ending.")
    flags.DEFINE_string("semantic_suffix", ".png", "What the names of semantic PNGs have after the picture's name.")
    flags.DEFINE_string("instance_suffix", ".png", "What the names of instance PNGs have after the picture's name.")
    flags.DEFINE_list("void_values", [], "Numbers in semantic PNGs that mean void; default: the ignore label.")
    flags.DEFINE_integer("no_instance_below", 1, "Smaller numbers in instance PNGs mean no instance.", lower_bound=0)
    flags.DEFINE_string("split", "train", "What the names of the shards begin with.")
    flags.DEFINE_float("val_fraction", 0.0, "Share of the pictures that goes to the split val.")
    flags.DEFINE_boolean("ignore_stuff_instances", False, "Drop instance numbers on stuff instead of refusing them.")
    command_line.define_crowd_flag(default=False)
    command_line.define_output_flags()
    flags.adopt_module_key_flags(command_line)


def main() -> None:
    """Converts as the flags say."""
    command_line.convert_by_flags(convert_folder)


if __name__ == "__main__":
    _define_flags()
    run_program(main, __doc__)
