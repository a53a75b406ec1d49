"""Picture files of all formats, and files that are no pictures."""

from __future__ import annotations

import uuid

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab2_kmax import files
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.serving import read_image

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


@pytest.mark.parametrize("content", [b"", b"a text, no picture", b"\x89PNG\r\n\x1a\n"])
def test_files_that_are_no_pictures_are_named(tmp_path, content):
    (tmp_path / "notes.jpg").write_bytes(content)
    with pytest.raises(DataError, match="notes.jpg: expected a picture"):
        read_image(tmp_path / "notes.jpg")


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
