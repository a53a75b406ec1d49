"""Semantic and instance PNGs as panoptic labels: exact ids on small arrays, and messages that name the file."""

import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab2_kmax.converters.reading.label_pngs import LabelPngFormat, panoptic_label, read_id_png
from deeplab2_kmax.converters.reading.labelled_images import LabelledImage
from deeplab2_kmax.converters.reading.semantic_png import semantic_record
from deeplab2_kmax.datasets import DatasetDescriptor, SegmentClass, load_dataset
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.pictures.label_pngs import decode_colors
from deeplab2_kmax.records.class_counts import count_classes

CLASSES = (
    SegmentClass(1, "car", True, (1, 2, 3), 26),
    SegmentClass(2, "man", True, (1, 2, 3), 24),
    SegmentClass(3, "road", False, (1, 2, 3), 7),
)
OWN = DatasetDescriptor("own", CLASSES, num_classes=4, ignore_label=0, label_divisor=4)
# Cars of numbers 9, 65535 and 0 (crowd), a man of number 9 as well, road, void.
SEMANTIC = np.array([[26, 26, 26, 7], [26, 24, 255, 7]], np.int32)
INSTANCES = np.array([[65535, 9, 9, 0], [0, 9, 3, 0]], np.int32)


def _format(**changes):
    return LabelPngFormat(OWN, frozenset([255]), **changes)


def test_instances_count_from_one_in_the_order_of_their_numbers():
    label = panoptic_label(SEMANTIC, INSTANCES, _format(), "x.png")
    assert label.dtype == np.int32
    np.testing.assert_array_equal(label, [[6, 5, 5, 12], [4, 9, 0, 12]])


def test_crowds_become_void_where_asked():
    label = panoptic_label(SEMANTIC, INSTANCES, _format(treat_crowd_as_ignore=True), "x.png")
    np.testing.assert_array_equal(label, [[6, 5, 5, 12], [0, 9, 0, 12]])


def test_instance_numbers_on_stuff_are_refused_or_dropped():
    numbered = np.where(SEMANTIC == 7, 2, INSTANCES)
    with pytest.raises(DataError, match="x.png: 2 pixels of the stuff class 'road': expected instance number 0, got 2"):
        panoptic_label(SEMANTIC, numbered, _format(), "x.png")
    label = panoptic_label(SEMANTIC, numbered, _format(ignore_stuff_instances=True), "x.png")
    np.testing.assert_array_equal(label, [[6, 5, 5, 12], [4, 9, 0, 12]])


@pytest.mark.parametrize(
    "semantic, instances, message",
    [
        ([[26, 1]], [[1, 0]], "x.png: 1 pixel with the value 1: expected the source_id.*own.*void values 255"),
        (
            [[26] * 4],
            [[1, 2, 3, 4]],
            "x.png: 1 pixel of instance number 4: expected at most 3 instances of 'car'.*label_divisor 4.*more",
        ),
        ([[7, 7]], [[0]], r"x.png: expected two PNGs of the same size, got 2 x 1 for the classes and 1 x 1 for"),
    ],
)
def test_what_makes_no_label_is_named(semantic, instances, message):
    with pytest.raises(DataError, match=message):
        panoptic_label(np.array(semantic), np.array(instances), _format(), "x.png")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "palette"])
def test_grey_and_palette_pngs_are_read(tmp_path, dtype):
    values = np.array([[0, 200], [7, 255]]) * (200 if dtype == "uint16" else 1)
    if dtype == "palette":
        picture = Image.fromarray(values.astype(np.uint8), "P")
        picture.putpalette(list(range(255, -1, -1)) * 3)
    else:
        picture = Image.fromarray(values.astype(dtype))
    picture.save(tmp_path / "a.png")
    read = read_id_png(str(tmp_path / "a.png"))
    assert read.dtype == np.int32
    np.testing.assert_array_equal(read, values)


@pytest.mark.parametrize("mode, ending, got", [("RGB", "png", "PNG of mode RGB"), ("L", "jpg", "JPEG of mode L")])
def test_colors_and_lossy_files_are_refused(tmp_path, mode, ending, got):
    path = tmp_path / f"a.{ending}"
    Image.new(mode, (2, 2)).save(path)
    with pytest.raises(DataError, match=f"a.{ending}: expected a PNG with one number a pixel.*got {got}"):
        read_id_png(str(path))


def test_missing_and_broken_labels_are_named(tmp_path):
    with pytest.raises(DataError, match="none.png: cannot read the label: No such file"):
        read_id_png(str(tmp_path / "none.png"))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="broken.png: expected a picture"):
        read_id_png(str(tmp_path / "broken.png"))


def _grey_png(depth, numbers):
    """A grey PNG of 1, 2, 4, 8 or 16 bits, as pypng, netpbm and MATLAB write it; Pillow writes 8 and 16 only."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    bits = (numbers[..., None] >> np.arange(depth)[::-1] & 1).reshape(len(numbers), -1).astype(np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(bits, axis=1))
    head = struct.pack(">IIBBBBB", numbers.shape[1], numbers.shape[0], depth, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_grey_of_any_depth_holds_the_numbers_that_were_written(tmp_path, depth):
    numbers = np.arange(7 * 37).reshape(7, 37) * 251 % 2**depth
    (tmp_path / "label.png").write_bytes(_grey_png(depth, numbers))
    np.testing.assert_array_equal(read_id_png(str(tmp_path / "label.png")), numbers)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_of_any_depth_give_their_indices(tmp_path, bits):
    numbers = np.arange(7 * 37, dtype=np.uint8).reshape(7, 37) & (2**bits - 1)
    picture = Image.fromarray(numbers)
    picture.putpalette(list(range(255, -1, -1)) * 3)
    picture.save(tmp_path / "label.png", bits=bits)
    np.testing.assert_array_equal(read_id_png(str(tmp_path / "label.png")), numbers)


@pytest.mark.parametrize("depth", [1, 4])
def test_semantic_labels_of_few_bits_are_stored_as_the_numbers_they_hold(tmp_path, depth):
    numbers = np.arange(7 * 37).reshape(7, 37) % 2**depth
    (tmp_path / "label.png").write_bytes(_grey_png(depth, numbers))
    Image.new("RGB", (37, 7)).save(tmp_path / "image.png")
    item = LabelledImage("image", str(tmp_path / "image.png"), str(tmp_path / "label.png"))
    record = semantic_record(item, "png", load_dataset("cityscapes_panoptic"))
    label = tf.train.Example.FromString(record).features.feature["image/segmentation/class/encoded"]
    held = tf.io.decode_png(label.bytes_list.value[0])[..., 0].numpy()
    np.testing.assert_array_equal(held, numbers)
    assert count_classes(record, 1000)[1] == (1, (numbers == 1).sum())


def test_segment_ids_in_colors_of_16_bits_are_refused():
    head = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    png = _grey_png(16, np.full((1, 3), 300)).replace(struct.pack(">IIBBBBB", 3, 1, 16, 0, 0, 0, 0), head)
    png = png.replace(png[29:33], struct.pack(">I", zlib.crc32(b"IHDR" + head)))
    with pytest.raises(DataError, match="ids.png: expected an RGB PNG of segment ids with 8 bits .* with 16 bits"):
        decode_colors(png, "ids.png")
