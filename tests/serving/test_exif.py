"""EXIF orientation in the graph: the same pixels as Pillow's, for every orientation and way to store it."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from deeplab2_kmax.pictures import decode_image
from deeplab2_kmax.serving.exif import orientation_of, upright

PIXELS = np.random.RandomState(0).randint(0, 256, (6, 9, 3)).astype(np.uint8)
ORIENTATION = 0x0112


def exif_bytes(orientation, order="<", kind=3, others=2):
    """A TIFF directory with the orientation among other entries."""
    value = struct.pack(f"{order}HHI", ORIENTATION, kind, 1)
    value += struct.pack(f"{order}HH", orientation, 0) if kind == 3 else struct.pack(f"{order}I", orientation)
    other = [struct.pack(f"{order}HHII", tag, 4, 1, 6) for tag in range(0x100, 0x100 + others)]
    entries = [*other, value]
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    return header + struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)


def encoded(image_format, exif=None):
    stream = io.BytesIO()
    extra = {} if exif is None else {"exif": exif}
    Image.fromarray(PIXELS).save(stream, image_format, **extra)
    return stream.getvalue()


def jpeg(directory, before=b""):
    plain = encoded("jpeg")
    segment = b"Exif\0\0" + directory
    return plain[:2] + before + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + plain[2:]


@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def in_graph(content):
    image = tf.io.decode_image(content, channels=3, expand_animations=False)
    return orientation_of(content), upright(image, orientation_of(content))


@pytest.mark.parametrize("image_format", ["jpeg", "png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_are_turned_as_pillow_turns_them(orientation, image_format):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    content = encoded(image_format, exif)
    found, pixels = in_graph(content)
    assert found == orientation
    stored = Image.fromarray(tf.io.decode_image(content, channels=3).numpy())
    stored.info["exif"] = exif.tobytes()
    np.testing.assert_array_equal(pixels, np.asarray(ImageOps.exif_transpose(stored)))
    # The reader of predictions decodes JPEGs that are turned by another decoder.
    difference = np.abs(pixels.numpy().astype(int) - decode_image(content)).max()
    assert difference <= (0 if image_format == "png" else 10)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4])
@pytest.mark.parametrize("others", [0, 30])
@pytest.mark.parametrize("before", [b"", b"\xff\xe0\0\x06abcd", b"\xff\xff\xff\xe2\x01\x00" + bytes(254)])
def test_directories_of_all_layouts(order, kind, others, before):
    content = jpeg(exif_bytes(6, order, kind, others), before)
    assert Image.open(io.BytesIO(content)).getexif()[ORIENTATION] == 6
    assert in_graph(content)[0] == 6


@pytest.mark.parametrize(
    "content",
    [
        encoded("jpeg"),
        encoded("png"),
        encoded("bmp"),
        encoded("gif"),
        jpeg(exif_bytes(9)),
        jpeg(exif_bytes(0)),
        jpeg(b""),
        jpeg(b"II*\0"),
        jpeg(b"II*\0\xff\xff\xff\xff"),
        jpeg(b"II*\0\x08\0\0\0\xff\xff"),
        jpeg(b"no directory of TIFF at all"),
        encoded("jpeg")[:2] + b"\xff\xe1\0\x08http" + encoded("jpeg")[2:],
    ],
)
def test_without_a_sound_orientation_pixels_stay(content):
    found, pixels = in_graph(content)
    assert found == 1
    assert pixels.shape == PIXELS.shape


@pytest.mark.parametrize("length", [0, 1, 2, 5, 9, 11, 14, 30, 60])
def test_files_that_end_anywhere_do_not_crash(length):
    for whole in (jpeg(exif_bytes(6)), encoded("png", exif_bytes(3))):
        assert 1 <= int(orientation_of(tf.constant(whole[:length]))) <= 8
