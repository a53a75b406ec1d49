"""Pictures of all kinds have one meaning, in records and in prediction; others are refused by name."""

from __future__ import annotations

import io
import os
import struct
import uuid
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps, PngImagePlugin

from deeplab2_kmax import files
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.pictures import MAX_PIXELS, decode_image, opening, read_image, stored

PIXELS = np.random.RandomState(3).randint(0, 256, (9, 14, 3)).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff"])
def test_lossless_formats(tmp_path, suffix):
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(PIXELS).save(path)
    pixels = read_image(path)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, PIXELS)


def test_jpeg_pixels_are_those_of_the_input_pipeline(tmp_path):
    path = tmp_path / "picture.jpg"
    Image.fromarray(PIXELS).save(path)
    expected = tf.io.decode_image(path.read_bytes(), channels=3, expand_animations=False)
    np.testing.assert_array_equal(read_image(path), expected)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
def test_other_color_modes_become_rgb(tmp_path, mode):
    picture = Image.fromarray(PIXELS).convert(mode)
    picture.save(tmp_path / "picture.png")
    np.testing.assert_array_equal(read_image(tmp_path / "picture.png"), np.asarray(picture.convert("RGB")))


def test_photos_are_turned_upright(tmp_path):
    picture = Image.fromarray(PIXELS)
    exif = picture.getexif()
    exif[0x0112] = 6  # the camera was held with its right side down
    picture.save(tmp_path / "photo.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "photo.png"), np.rot90(PIXELS, -1))


@pytest.mark.parametrize(
    "content, what",
    [
        (b"", "an empty file"),
        (b"a text, no picture", "18 bytes of another kind"),
        (b"\0\0\0\x24ftypheic\0\0\0\0", "a HEIC photo; save it as JPEG or PNG"),
        (b"%PDF-1.7", "a PDF document"),
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS"),
        (b"\0\5\26\7" + bytes(4092), "the AppleDouble file that macOS keeps"),
    ],
)
def test_files_that_are_no_pictures_are_named(tmp_path, content, what):
    (tmp_path / "notes.jpg").write_bytes(content)
    with pytest.raises(DataError, match=f"notes.jpg: expected a picture .*, got {what}"):
        read_image(tmp_path / "notes.jpg")


@pytest.mark.parametrize("start", [opening.PNG_START, opening.JPEG_START])
def test_the_beginning_of_a_picture_is_called_broken(start):
    with pytest.raises(DataError, match="p.png: expected a whole picture, but its data are broken or end too early"):
        decode_image(start, "p.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff"])
def test_cut_off_pictures_are_named(tmp_path, suffix):
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(PIXELS.repeat(20, 0).repeat(20, 1)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="cut"):
        read_image(path)


def test_pictures_on_remote_storage():
    path = f"ram://pictures/{uuid.uuid4().hex}.png"
    files.write_bytes(path, tf.io.encode_png(PIXELS).numpy())
    np.testing.assert_array_equal(read_image(path), PIXELS)
    with pytest.raises(DataError, match="ram://pictures/none.png: cannot read the file"):
        read_image("ram://pictures/none.png")


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(DataError, match="nowhere.png"):
        read_image(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=str(tmp_path)):
        read_image(tmp_path)


def encoded(picture, image_format, **options):
    stream = io.BytesIO()
    picture.save(stream, format=image_format, **options)
    return stream.getvalue()


def of(mode):
    return Image.fromarray(PIXELS).convert(mode)


def exif(orientation):
    content = Image.Exif()
    content[0x0112] = orientation
    return content


def grey16(image_format, values=None):
    values = np.arange(126, dtype=np.uint16).reshape(9, 14) * 520 if values is None else values
    return encoded(Image.fromarray(values), image_format)


def png16(color_type, channels):
    """A PNG with 16 bits a channel, of kinds that Pillow does not write."""
    values = np.random.RandomState(1).randint(0, 65536, (9, 14, channels)).astype(">u2")
    return raw_png(16, color_type, values.reshape(9, -1).view(np.uint8)), values


def raw_png(depth, color_type, rows, width=14):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, len(rows), depth, color_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return opening.PNG_START + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def tiff16(values, photometric):
    """A grey TIFF of 16 bits, little-endian, of which Pillow writes one kind only."""
    values = values.astype("<u2")
    height, width = values.shape
    tags = [(256, width), (257, height), (258, 16), (259, 1), (262, photometric), (273, 8 + 2 + 9 * 12 + 4)]
    tags += [(277, 1), (278, height), (279, values.nbytes)]
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + values.tobytes()


RAMP = np.arange(126).reshape(9, 14) * 520
MOVING = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
# What people have, and the pixels it stands for; None: whatever Pillow's own conversion to RGB says.
KINDS = {
    "rgb jpeg": (encoded(of("RGB"), "jpeg"), None),
    "grey jpeg": (encoded(of("L"), "jpeg"), None),
    "progressive jpeg": (encoded(of("RGB"), "jpeg", progressive=True), None),
    "cmyk jpeg": (encoded(of("CMYK"), "jpeg"), None),
    "mpo photo": (encoded(of("RGB"), "mpo", save_all=True, append_images=[Image.fromarray(255 - PIXELS)]), None),
    "rgb png": (encoded(of("RGB"), "png"), PIXELS),
    "rgba png": (encoded(of("RGBA"), "png"), PIXELS),
    "palette png": (encoded(of("P"), "png"), None),
    "palette png of 2 bits": (encoded(of("RGB").quantize(4), "png", bits=2), None),
    "transparent palette png": (encoded(of("P"), "png", transparency=3), None),
    "grey and alpha png": (encoded(of("LA"), "png"), None),
    "black and white png": (encoded(of("1"), "png"), None),
    "grey png of 4 bits": (
        raw_png(4, 0, np.full((9, 7), 0x2F, np.uint8)),
        np.tile(np.uint8([2 * 17, 255]), (9, 7))[..., None].repeat(3, -1),
    ),
    "animated png": (encoded(MOVING[0], "png", save_all=True, append_images=MOVING[1:]), PIXELS),
    "grey png of 16 bits": (grey16("png"), (RAMP >> 8)[..., None].repeat(3, -1)),
    "rgb png of 16 bits": (png16(2, 3)[0], png16(2, 3)[1] >> 8),
    "rgba png of 16 bits": (png16(6, 4)[0], png16(6, 4)[1][..., :3] >> 8),
    "grey and alpha png of 16 bits": (png16(4, 2)[0], (png16(4, 2)[1][..., :1] >> 8).repeat(3, -1)),
    "grey tiff of 16 bits": (grey16("tiff"), (RAMP >> 8)[..., None].repeat(3, -1)),
    "grey tiff of 16 bits, white is 0": (tiff16(65535 - RAMP, 0), (RAMP >> 8)[..., None].repeat(3, -1)),
    "grey pgm of 16 bits": (
        b"P5 14 9 65535\n" + RAMP.astype(">u2").tobytes(),
        (RAMP >> 8)[..., None].repeat(3, -1),
    ),
    "palette tiff": (encoded(of("P"), "tiff"), None),
    "cmyk tiff": (encoded(of("CMYK"), "tiff"), None),
    "tiff with a preview": (
        encoded(of("RGB"), "tiff", save_all=True, append_images=[of("RGB").resize((7, 4))]),
        PIXELS,
    ),
    "palette bmp": (encoded(of("P"), "bmp"), None),
    "black and white bmp": (encoded(of("1"), "bmp"), None),
    "palette gif": (encoded(of("P"), "gif"), None),
    "moving gif": (encoded(of("P"), "gif", save_all=True, append_images=[of("P").rotate(180)]), None),
    "webp": (encoded(of("RGB"), "webp", lossless=True), PIXELS),
    "pcx palette": (encoded(of("P"), "pcx"), None),
}
for _orientation, _upright in {
    2: PIXELS[:, ::-1],
    3: PIXELS[::-1, ::-1],
    4: PIXELS[::-1],
    5: PIXELS.transpose(1, 0, 2),
    6: np.rot90(PIXELS, -1),
    7: PIXELS[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(PIXELS),
}.items():
    for _format in ("png", "tiff", "webp"):
        _options = {"lossless": True} if _format == "webp" else {}
        _content = encoded(of("RGB"), _format, exif=exif(_orientation), **_options)
        KINDS[f"{_format} of orientation {_orientation}"] = (_content, _upright)
    KINDS[f"jpeg of orientation {_orientation}"] = (encoded(of("RGB"), "jpeg", exif=exif(_orientation)), None)
KINDS["jpeg of an orientation that is none"] = (encoded(of("RGB"), "jpeg", exif=exif(9)), None)


@pytest.mark.parametrize("kind", KINDS)
def test_training_and_prediction_see_the_same_right_pixels(kind):
    content, expected = KINDS[kind]
    pixels = decode_image(content, kind)
    assert pixels.dtype == np.uint8
    if expected is None:
        picture = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
        expected = np.asarray(picture.convert("RGB"))
    assert pixels.shape == expected.shape
    # TensorFlow's decoder of JPEG differs from Pillow's by a few grey levels.
    tolerance = 5 if content.startswith(opening.JPEG_START) else 0
    assert np.abs(pixels.astype(int) - expected.astype(int)).max() <= tolerance

    held = stored(content, kind)
    of_training = tf.io.decode_image(held.encoded, channels=3, expand_animations=False).numpy()
    np.testing.assert_array_equal(of_training, pixels)
    assert (held.height, held.width) == pixels.shape[:2]
    assert held.encoded.startswith({"jpeg": opening.JPEG_START, "png": opening.PNG_START}[held.format])
    # And what is stored is stored again as it is.
    assert stored(held.encoded, kind).encoded == held.encoded


@pytest.mark.parametrize("kind", ["rgb jpeg", "grey jpeg", "progressive jpeg", "mpo photo", "rgb png", "animated png"])
def test_records_keep_the_files_that_tensorflow_reads_rightly(kind):
    content = KINDS[kind][0]
    assert stored(content, kind).encoded is content


REFUSED = {
    "floats": (encoded(Image.fromarray(RAMP.astype(np.float32)), "tiff"), "floats, .*which value is white"),
    "32 bits": (encoded(Image.fromarray(RAMP.astype(np.int32)), "tiff"), "whole numbers of 32 bits, .*8 bits"),
    "lab": (encoded(Image.merge("LAB", of("RGB").split()), "tiff"), "LAB colors; save it as RGB"),
    "12 bits in 16": (grey16("png", (RAMP // 16).astype(np.uint16)), "got values below 4096, of which only 16 levels"),
    "8 bits in 16": (grey16("tiff", (RAMP // 256).astype(np.uint16)), "got values below 256, of which only 1 level"),
    "8 bits in 16, in color": (
        raw_png(16, 2, np.full((9, 84), 200, ">u2").astype(">u2")[:, :42].view(np.uint8)),
        "got values below 256",
    ),
    "pages": (encoded(MOVING[0], "tiff", save_all=True, append_images=MOVING[1:]), "a TIFF of 2 pages of the same"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("read", [decode_image, stored])
def test_pixels_without_a_sure_meaning_are_refused_alike(read, kind):
    content, reason = REFUSED[kind]
    with pytest.raises(DataError, match=f"scan.tif: .*{reason}"):
        read(content, "scan.tif")


@pytest.mark.parametrize("width, height", [(MAX_PIXELS, 1), (11_600, 11_600), (60_000, 60_000), (2**30, 2**30)])
def test_large_pictures_are_refused_by_their_header(width, height):
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    broken = opening.PNG_START + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    reason = "whole picture" if width * height <= MAX_PIXELS else "at most 134,217,728 pixels, .* cut it into tiles"
    with pytest.raises(DataError, match=f"map.png: expected a .*{reason}"):
        decode_image(broken, "map.png")


def test_a_tiff_whose_next_page_has_no_size_is_broken():
    stream = io.BytesIO()
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(stream, "tiff", compression=None)
    tiff = bytearray(stream.getvalue())
    directory = struct.unpack_from("<I", tiff, 4)[0]
    next_page = directory + 2 + 12 * struct.unpack_from("<H", tiff, directory)[0]
    struct.pack_into("<I", tiff, next_page, len(tiff))
    with pytest.raises(DataError, match="p.tif: expected a whole picture, but its data are broken"):
        decode_image(bytes(tiff) + struct.pack("<HI", 0, 0), "p.tif")


@pytest.mark.parametrize("error", [TypeError, KeyError, IndexError, EOFError, OverflowError, AssertionError])
def test_whatever_pillow_fails_by_is_a_broken_picture(monkeypatch, error):
    """As Pillow documents no errors for damaged files; each of these has been seen, or stands in its code."""

    def load(self):
        raise error("inside of Pillow")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    stream = io.BytesIO()
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(stream, "png")
    with pytest.raises(DataError, match="p.png: expected a whole picture"):
        decode_image(stream.getvalue(), "p.png")


def test_broken_exif_leaves_the_pixels_alone():
    content = encoded(of("RGB"), "png", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    np.testing.assert_array_equal(decode_image(content), PIXELS)


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path, kind in [(tmp_path / "pipe.png", "a pipe"), ("/dev/zero", "a device"), (tmp_path, "a folder")]:
        with pytest.raises(
            DataError, match=f"^{path}: expected a picture file, got {kind}; save the picture to a file"
        ):
            read_image(path)
