"""Encoding of single records: color modes, EXIF orientation, and images or labels that are refused."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab2_kmax.errors import DataError
from deeplab2_kmax.records import schema

# Smooth, so that JPEG changes little.
PIXELS = np.linspace((20, 90, 250), (240, 150, 10), 140).reshape(10, 14, 3).astype(np.uint8)


def encoded(mode="RGB", image_format="jpeg", **options):
    stream = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(stream, format=image_format, **options)
    return stream.getvalue()


def parsed(record, with_label=False):
    return {k: v.numpy() for k, v in tf.io.parse_single_example(record, schema.feature_spec(with_label)).items()}


def test_upright_rgb_bytes_are_kept():
    image = encoded()
    record = parsed(schema.encode_record(image, "jpeg", "name", None))
    assert record[schema.IMAGE_ENCODED] == image
    assert (record[schema.IMAGE_HEIGHT], record[schema.IMAGE_WIDTH], record[schema.IMAGE_CHANNELS]) == (10, 14, 3)
    assert (record[schema.IMAGE_FILENAME], record[schema.IMAGE_FORMAT]) == (b"name", b"jpeg")


@pytest.mark.parametrize(
    "mode, image_format",
    [("L", "jpeg"), ("CMYK", "jpeg"), ("L", "jpg"), ("RGBA", "png"), ("P", "png"), ("1", "png"), ("LA", "png")],
)
def test_other_modes_become_rgb(mode, image_format):
    image = encoded(mode, "jpeg" if image_format == "jpg" else image_format)
    record = parsed(schema.encode_record(image, image_format, "name", None))
    again = Image.open(io.BytesIO(record[schema.IMAGE_ENCODED]))
    assert (again.mode, again.size) == ("RGB", (14, 10))
    wanted = np.asarray(Image.open(io.BytesIO(image)).convert("RGB"), int)
    assert np.abs(np.asarray(again, int) - wanted).mean() < (6 if again.format == "JPEG" else 1e-9)


def test_images_that_exif_turns_are_stored_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image = encoded(image_format="png", exif=exif)
    label = np.arange(140, dtype=np.int32).reshape(14, 10)
    record = parsed(schema.encode_record(image, "png", "name", label), with_label=True)
    assert (record[schema.IMAGE_HEIGHT], record[schema.IMAGE_WIDTH]) == (14, 10)
    pixels = tf.io.decode_image(record[schema.IMAGE_ENCODED]).numpy()
    np.testing.assert_array_equal(pixels, np.rot90(PIXELS, -1))


def test_labels_of_any_integer_type_are_stored_as_int32():
    label = np.arange(140).reshape(10, 14) * 256
    for dtype in (np.int32, np.int64, np.uint16):
        record = parsed(schema.encode_record(encoded(), "jpeg", "name", label.astype(dtype)), with_label=True)
        assert record[schema.LABEL_ENCODED] == label.astype("<i4").tobytes()
        assert record[schema.LABEL_FORMAT] == b"raw"


@pytest.mark.parametrize(
    "image, label, reason",
    [
        (encoded()[:-150], None, "'name': expected a whole picture"),
        (encoded(image_format="png")[:-150], None, "'name': expected a whole picture"),
        (b"", None, "got an empty file"),
        (
            encoded(),
            np.zeros((14, 10), np.int32),
            r"14 x 10 pixels, got one of 10 x 14; one of them is turned",
        ),
        (encoded(), np.zeros((10, 14, 1), np.int32), r"got int32 \[10, 14, 1\]"),
        (encoded(), np.zeros((10, 14), np.float32), "got float32"),
    ],
)
def test_broken_input(image, label, reason):
    with pytest.raises(DataError, match=reason):
        schema.encode_record(image, "jpeg", "name", label)


def test_turned_jpegs_look_as_before():
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image = encoded(exif=exif)
    record = parsed(schema.encode_record(image, "jpeg", "name", None))
    turned = np.asarray(Image.open(io.BytesIO(record[schema.IMAGE_ENCODED])), int)
    before = np.asarray(Image.open(io.BytesIO(image)), int)[::-1, ::-1]
    assert np.abs(turned - before).mean() < 4


def test_semantic_pngs_are_kept_as_they_are():
    label = encoded("L", "png")
    record = parsed(schema.encode_record(encoded(), "jpeg", "name", label), with_label=True)
    assert (record[schema.LABEL_ENCODED], record[schema.LABEL_FORMAT]) == (label, b"png")
    with pytest.raises(DataError, match=r"expected a PNG label of .* 14 x 10 pixels, got a JPEG of 14 x 10"):
        schema.encode_record(encoded(), "jpeg", "name", encoded("L", "jpeg"))
    wide = io.BytesIO()
    Image.new("L", (15, 10)).save(wide, format="png")
    with pytest.raises(DataError, match=r"got a PNG of 15 x 10"):
        schema.encode_record(encoded(), "jpeg", "name", wide.getvalue())


def test_labels_of_records_that_do_not_name_a_format_are_raw():
    # DeepLab2 does not ask for the format, so records of other writers may lack it.
    label = np.zeros((10, 14), np.int32)
    example = tf.train.Example.FromString(schema.encode_record(encoded(), "jpeg", "name", label))
    del example.features.feature[schema.LABEL_FORMAT]
    assert parsed(example.SerializeToString(), with_label=True)[schema.LABEL_FORMAT] == b"raw"


def test_unknown_format():
    with pytest.raises(DataError, match="'name': expected a format of jpeg, jpg, png; got 'gif'"):
        schema.encode_record(encoded(), "gif", "name", None)
