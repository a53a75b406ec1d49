r"""Converts the user's own data, folders of images and label PNGs, to TFRecords.

    deeplab2-kmax convert folder --dataset=my/dataset.json --image_folder=my/photos \
        --semantic_folder=my/semantic --instance_folder=my/instances --val_fraction=0.2 --output_dir=my/records

    my/dataset.json           the classes (see docs/your_own_dataset.md)
    my/photos/NAME.jpg        any picture that `predict` reads
    my/semantic/NAME.png      grey of up to 16 bits, or palette: the source_id of a class, or void
    my/instances/NAME.png     grey of up to 16 bits, or palette: instance numbers of things, 0 elsewhere
Without --instance_folder all classes have to be stuff, as in semantic segmentation.
"""

from __future__ import annotations

import functools
import os.path
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from absl import flags

from deeplab2_kmax import files
from deeplab2_kmax.converters import command_line
from deeplab2_kmax.converters.reading import label_pngs
from deeplab2_kmax.converters.reading.images import (
    image_record,
    list_folder,
    same_name,
    split_by_fraction,
    tell_of_subfolders,
    user_images,
)
from deeplab2_kmax.converters.reading.label_pngs import LabelPngFormat
from deeplab2_kmax.converters.writing.sharded_output import Origin, ShardedOutput, Split
from deeplab2_kmax.datasets import DatasetDescriptor, load_dataset
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.pictures import PICTURE_ENDINGS
from deeplab2_kmax.wording import counted, some_of

_NAMED_CLASSES = 5


class FolderImage(NamedTuple):
    """One image and its label PNGs; `instance_path` is None if all classes are stuff."""

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
    void_values: Sequence[int | str] = (),
    no_instance_below: int = 1,
    split: str = "train",
    val_fraction: float = 0.0,
    treat_crowd_as_ignore: bool = False,
    ignore_stuff_instances: bool = False,
    num_shards: int | None = None,
    num_processes: int | None = None,
    beam: str | None = None,
) -> list[str]:
    """Writes one record for each image.

    Args:
        dataset: path of the descriptor file, or the name of a built-in data set.
        image_folder: the folder of the images.
        semantic_folder: the folder of the semantic PNGs, `<name of the image><semantic_suffix>`, whose numbers are
            source ids.
        output_dir: the folder for `<split>-XXXXX-of-XXXXX.tfrecord`; made where missing.
        instance_folder: the folder of the instance PNGs, `<name of the image><instance_suffix>`; None if all classes
            are stuff.
        image_suffix: what follows the name of an image in its file name; "" for any ending of pictures.
        semantic_suffix: what follows the name of the image in the file name of its semantic PNG.
        instance_suffix: what follows the name of the image in the file name of its instance PNG.
        void_values: the numbers in semantic PNGs that mean void, as numbers or text; if empty, the ignore label of the
            descriptor.
        no_instance_below: numbers in instance PNGs that are smaller mean no instance, as 0 does.
        split: what the names of the shards begin with.
        val_fraction: the share of the images that goes to the split "val", see `split_by_fraction`.
        treat_crowd_as_ignore: label pixels of things with instance number 0 as void, instead of as a crowd.
        ignore_stuff_instances: drop instance numbers on stuff; otherwise they are an error.
        num_shards, num_processes, beam: how the shards are written, see `ShardedOutput`.

    Returns:
        The paths of the shards, in order.

    Raises:
        ConfigError: the descriptor cannot be read or contradicts itself.
        DataError: images or labels are missing, broken or contradict each other (the message names the file); there are
            things but no instance folder; or the output folder cannot be written. The shards that are finished by then
            are kept for the next run, see `ShardedOutput`.
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
        splits = [Split(*each, make_record, source_files) for each in split_by_fraction(images, split, val_fraction)]
        return output.write(splits, Origin("folder", descriptor, settings, image_folder))


def source_files(item: FolderImage) -> list[str]:
    """The files that the record of an image is made from."""
    paths = (item.image_path, item.semantic_path, item.instance_path)
    return [path for path in paths if path is not None]


def folder_record(item: FolderImage, source: LabelPngFormat) -> bytes:
    """The record, a serialized tf.train.Example, of an image and its label PNGs.

    Raises:
        DataError: a file is broken, or the files contradict each other; the message names the file.
    """
    semantic = label_pngs.read_id_png(item.semantic_path)
    instances = None if item.instance_path is None else label_pngs.read_id_png(item.instance_path)
    where = " with ".join(filter(None, [item.semantic_path, item.instance_path]))
    label = label_pngs.panoptic_label(semantic, instances, source, where)
    return image_record(item.name, item.image_path, None, label)


def find_images(
    image_folder: str,
    semantic_folder: str,
    instance_folder: str | None = None,
    image_suffix: str = "",
    semantic_suffix: str = ".png",
    instance_suffix: str = ".png",
) -> list[FolderImage]:
    """The images of a folder, sorted by name, each with its label PNGs; see `convert_folder`.

    Raises:
        DataError: a folder cannot be read, there are no images, two have the same name, or a label is missing.
    """
    images = user_images(image_folder, image_suffix)
    tell_of_subfolders(image_folder, (image_suffix.lower(),) if image_suffix else PICTURE_ENDINGS, "picture")
    if not image_suffix:
        _refuse_unread_pictures(images, image_folder, semantic_folder, semantic_suffix)
    semantic = _labels(images, semantic_folder, semantic_suffix)
    instances = _labels(images, instance_folder, instance_suffix) if instance_folder else {}
    _tell_left_out(semantic_folder, semantic_suffix, {*images.values(), *semantic.values(), *instances.values()})
    return [FolderImage(name, path, semantic[name], instances.get(name)) for name, path in images.items()]


def _labels(images: Mapping[str, str], folder: str, suffix: str) -> dict[str, str]:
    """The label PNG of each image."""
    there = {_same_label(file, suffix): file for file in list_folder(folder)}
    for name, image in images.items():
        if _same_label(name + suffix, suffix) not in there:
            raise DataError(f"{files.join(folder, name + suffix)}: no such file; expected it as label of {image}")
    return {name: files.join(folder, there[_same_label(name + suffix, suffix)]) for name in images}


def _tell_left_out(folder: str, suffix: str, used: set[str]) -> None:
    """Prints how many labels have no image: they may be those of another split, or of images that got lost."""
    labels = [file for file in list_folder(folder) if file.lower().endswith(suffix.lower())]
    left = [file for file in labels if files.join(folder, file) not in used]
    if left:
        print(f"{folder}: left out {counted(len(left), 'label')} without an image, such as {left[0]}")


def _same_label(file: str, suffix: str) -> str:
    """The name of a label in the form by which names are compared; some tools write endings in capitals."""
    name = same_name(file)
    end = len(name) - len(suffix)
    return name[:end] + name[end:].lower()


def _refuse_unread_pictures(
    images: Mapping[str, str], image_folder: str, semantic_folder: str, semantic_suffix: str
) -> None:
    """Refuses a file that has a label, but that is of no format that is read; it must not be lost."""
    labels = set(list_folder(semantic_folder))
    for file in list_folder(image_folder):
        name, ending = os.path.splitext(file)
        if name not in images and name + semantic_suffix in labels and ending.lower() not in PICTURE_ENDINGS:
            raise DataError(
                f"{files.join(image_folder, file)}: expected a picture ({', '.join(PICTURE_ENDINGS)}), as it has a"
                f" label {name + semantic_suffix}; save it as JPEG or PNG, or move it away"
            )


def _require_stuff_only(descriptor: DatasetDescriptor, dataset: str) -> None:
    things = [c.name for c in descriptor.classes if c.is_thing]
    if things:
        raise DataError(
            f"instance_folder: expected the folder of instance PNGs, as {dataset} has things"
            f" ({some_of(things, _NAMED_CLASSES)}); give --instance_folder, or set is_thing to false in {dataset} to"
            " train on classes alone"
        )


def _numbers(void_values: Sequence[int | str]) -> frozenset[int]:
    """The void values as integers; from the command line they come as text."""
    try:
        # By way of text, as int(1.5) would be 1.
        return frozenset(int(str(value)) for value in void_values)
    except ValueError as error:
        got = ",".join(str(value) for value in void_values)
        raise DataError(f"void_values: expected whole numbers, such as 0,255; got {got}") from error


def _require_void_is_no_class(source: LabelPngFormat) -> None:
    for value in sorted(source.void_values & source.descriptor.by_source_id.keys()):
        name = source.descriptor.by_source_id[value].name
        raise DataError(
            f"void_values: expected numbers that are not the source_id of a class, got {value}, that of {name!r}; by"
            " default the ignore_label of the descriptor means void"
        )


def _define_flags() -> None:
    flags.DEFINE_string("dataset", None, "Descriptor file of the classes, or a built-in data set.", required=True)
    flags.DEFINE_string("image_folder", None, "Folder of the images (any picture that `predict` reads).", required=True)
    flags.DEFINE_string("semantic_folder", None, "Folder of the semantic PNGs, which hold source ids.", required=True)
    flags.DEFINE_string("instance_folder", None, "Folder of the instance PNGs; none if all classes are stuff.")
    flags.DEFINE_string("image_suffix", "", "What follows an image's name in its file name; by default any extension.")
    flags.DEFINE_string("semantic_suffix", ".png", "What follows the image's name in that of its semantic PNG.")
    flags.DEFINE_string("instance_suffix", ".png", "What follows the image's name in that of its instance PNG.")
    flags.DEFINE_list("void_values", [], "Numbers in semantic PNGs that mean void; by default the ignore label.")
    flags.DEFINE_integer("no_instance_below", 1, "Smaller numbers in instance PNGs mean no instance.", lower_bound=0)
    command_line.define_split_flags()
    flags.DEFINE_boolean("ignore_stuff_instances", False, "Drop instance numbers on stuff instead of refusing them.")
    command_line.define_shared_flags(treat_crowd_as_ignore=False)


if __name__ == "__main__":
    _define_flags()
    command_line.convert_by_flags(convert_folder, __doc__)
