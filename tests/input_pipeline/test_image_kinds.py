"""Images other than 8-bit RGB become it; a header that promises too much is refused before decoding."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab2_kmax.input_pipeline.decoding import decode_record
from helpers.pipeline_records import changed, png, record

ROWS, COLUMNS = np.mgrid[:12, :16]
RGB = np.stack([ROWS * 20, COLUMNS * 15, np.full_like(ROWS, 90)], -1).astype(np.uint8)
DEEP = (np.arange(12 * 16).reshape(12, 16) * 300).astype(np.uint16)


def encode(image, kind):
    encoded = io.BytesIO()
    image.save(encoded, format=kind)
    return encoded.getvalue()


def png_of_16_bits(image):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in image)
    header = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def decode(encoded):
    return decode_record(tf.constant(changed(record(), IMAGE_ENCODED=encoded)), True).image.numpy().astype(int)


@pytest.mark.parametrize(("mode", "kind"), [("L", "jpeg"), ("CMYK", "jpeg"), ("P", "png"), ("1", "png"), ("LA", "png")])
def test_modes_as_pillow_converts_them(mode, kind):
    encoded = encode(Image.fromarray(RGB).convert(mode), kind)
    expected = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")).astype(int)
    # Decoders of JPEG differ in rounding.
    np.testing.assert_allclose(decode(encoded), expected, atol=8 if kind == "jpeg" else 0)


def test_sixteen_bits_and_transparency():
    np.testing.assert_array_equal(decode(png_of_16_bits(RGB.astype(np.uint16) * 257)), RGB)
    grey = decode(encode(Image.fromarray(DEEP), "png"))
    np.testing.assert_array_equal(grey, np.repeat((DEEP >> 8)[..., None], 3, -1))
    np.testing.assert_array_equal(decode(png(np.dstack([RGB, ROWS.astype(np.uint8)]))), RGB)


def test_decompression_bombs_are_refused_by_their_header():
    bomb = bytearray(png(RGB))
    bomb[16:24] = struct.pack(">II", 100_000, 100_000)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"image of height, width(.|\n)*100000, 100000"):
        decode(bytes(bomb))
    honest = changed(record(), IMAGE_ENCODED=bytes(bomb), IMAGE_HEIGHT=100_000, IMAGE_WIDTH=100_000)
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected an image of 1 to"):
        decode_record(tf.constant(honest), True)


TOO_MANY, OF_ANOTHER_SIZE = "expected an image of 1 to", "image of height, width(.|\n)*but the record says"


@pytest.mark.parametrize(
    ("height", "width", "message"),
    [
        (0, 16, TOO_MANY),
        (12, -16, TOO_MANY),
        # The product of these is 0 in 64 bits.
        (2**32, 2**32, TOO_MANY),
        (2**27 + 1, 1, TOO_MANY),
        (2**26 + 1, 2, TOO_MANY),
        # As many pixels as are allowed, so that it is the image's own size that does not fit.
        (2**27, 1, OF_ANOTHER_SIZE),
    ],
)
def test_sizes_beyond_the_limits_are_refused_before_the_image_is_looked_at(height, width, message):
    odd = changed(record(), IMAGE_HEIGHT=height, IMAGE_WIDTH=width)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        decode_record(tf.constant(odd), True)


@pytest.mark.parametrize("shape", [(12, 17), (13, 16)])
def test_one_side_of_another_length_is_enough_to_refuse_an_image(shape):
    with pytest.raises(tf.errors.InvalidArgumentError, match=OF_ANOTHER_SIZE):
        decode(png(np.zeros([*shape, 3], np.uint8)))


def test_other_formats_are_refused():
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected a JPEG or PNG image"):
        decode(encode(Image.fromarray(RGB), "gif"))
