"""Folders of pictures and labels with what people's programs leave in them: read right, or refused by name."""

import json
import os
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from deeplab2_kmax.converters.folder import convert_folder
from deeplab2_kmax.errors import DataError

CLASSES = [{"id": 1, "name": "cat", "is_thing": True}, {"id": 2, "name": "mud", "is_thing": False}]
SEMANTIC = np.full((6, 8), 2, np.uint8)
SEMANTIC[:3], SEMANTIC[5] = 1, 0
INSTANCES = np.zeros((6, 8), np.uint8)
INSTANCES[:3, :4], INSTANCES[:3, 4:] = 1, 2
EXPECTED = SEMANTIC * 100 + INSTANCES.astype(np.int32)
PHOTO = np.random.RandomState(0).randint(0, 256, (6, 8, 3), np.uint8)
TURN_LEFT, HALF_TURN = 6, 3


class Folders:
    """One picture with its labels, of which a test changes one thing."""

    def __init__(self, root):
        self.root = root
        for folder, pixels in (("photos", PHOTO), ("semantic", SEMANTIC), ("instances", INSTANCES)):
            (root / folder).mkdir()
            Image.fromarray(pixels).save(root / folder / "a.png")
        content = {"name": "own", "ignore_label": 0, "label_divisor": 100, "classes": CLASSES}
        (root / "own.json").write_text(json.dumps(content))

    def labels(self, **changes):
        """{name: label} of the records."""
        paths = convert_folder(
            **{
                "dataset": str(self.root / "own.json"),
                "image_folder": str(self.root / "photos"),
                "semantic_folder": str(self.root / "semantic"),
                "instance_folder": str(self.root / "instances"),
                "output_dir": str(self.root / "records"),
                "num_processes": 1,
                **changes,
            }
        )
        found = {}
        for record in tf.data.TFRecordDataset(paths):
            feature = tf.train.Example.FromString(record.numpy()).features.feature
            shape = [feature[f"image/{side}"].int64_list.value[0] for side in ("height", "width")]
            raw = feature["image/segmentation/class/encoded"].bytes_list.value[0]
            name = feature["image/filename"].bytes_list.value[0].decode()
            found[name] = np.frombuffer(raw, "<i4").reshape(shape)
        return found


@pytest.fixture
def folders(tmp_path):
    return Folders(tmp_path)


def save_turned(pixels, path, orientation, **options):
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, exif=exif, **options)


def jpeg_called_png(root):
    Image.fromarray(PHOTO).save(root / "photos/a.png", format="jpeg")


def endings_in_capitals(root):
    for folder in ("photos", "semantic", "instances"):
        os.rename(root / folder / "a.png", root / folder / "a.PNG")


def files_of_windows(root):
    (root / "photos/Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (root / "semantic/desktop.ini").write_text("[.ShellClassInfo]")


def linked_folder(root):
    os.rename(root / "photos", root / "elsewhere")
    os.symlink(root / "elsewhere", root / "photos")


def turned_picture_with_upright_label(root):
    save_turned(np.rot90(PHOTO).copy(), root / "photos/a.png", TURN_LEFT)


def picture_and_label_turned_alike(root):
    for folder, pixels in (("photos", PHOTO), ("semantic", SEMANTIC), ("instances", INSTANCES)):
        save_turned(pixels[::-1, ::-1].copy(), root / folder / "a.png", HALF_TURN)


def palette_with_a_transparent_color(root):
    label = Image.fromarray(SEMANTIC).convert("P")
    label.putpalette([0, 0, 0, 90, 90, 90, 80, 80, 80])
    label.save(root / "semantic/a.png", transparency=0)


def photo_with_a_preview(root):
    os.remove(root / "photos/a.png")
    photo = Image.fromarray(PHOTO)
    photo.save(root / "photos/a.jpg", format="MPO", save_all=True, append_images=[photo.resize((4, 3))])


def photo_with_a_gamma(root):
    chunk = PngInfo()
    chunk.add(b"gAMA", (45455).to_bytes(4, "big"))
    Image.fromarray(PHOTO).save(root / "photos/a.png", pnginfo=chunk)


def label_of_16_bits(root):
    Image.fromarray(SEMANTIC.astype(np.uint16)).save(root / "semantic/a.png")


@pytest.mark.parametrize(
    "change",
    [
        jpeg_called_png,
        endings_in_capitals,
        files_of_windows,
        linked_folder,
        turned_picture_with_upright_label,
        picture_and_label_turned_alike,
        palette_with_a_transparent_color,
        photo_with_a_preview,
        photo_with_a_gamma,
        label_of_16_bits,
    ],
)
def test_read_right(folders, change):
    change(folders.root)
    np.testing.assert_array_equal(folders.labels()["a"], EXPECTED)


def test_names_with_spaces_breaks_and_percent_signs(folders):
    for folder in ("photos", "semantic", "instances"):
        os.rename(folders.root / folder / "a.png", folders.root / folder / "a b\n%20.png")
    assert list(folders.labels()) == ["a b\n%20"]


def label_saved_as_rgb(root):
    Image.fromarray(SEMANTIC).convert("RGB").save(root / "semantic/a.png")


def label_in_colors(root):
    Image.fromarray(PHOTO).save(root / "semantic/a.png")


def label_as_jpeg(root):
    Image.fromarray(SEMANTIC).save(root / "semantic/a.png", format="jpeg")


def label_times_256(root):
    Image.fromarray(SEMANTIC.astype(np.uint16) * 256).save(root / "semantic/a.png")


def labels_of_another_size(root):
    for folder, label in (("semantic", SEMANTIC), ("instances", INSTANCES)):
        Image.fromarray(label[:5]).save(root / folder / "a.png")


def turned_picture_with_turned_label(root):
    save_turned(PHOTO, root / "photos/a.png", TURN_LEFT)


def two_pictures_of_one_name(root):
    Image.fromarray(PHOTO).save(root / "photos/a.jpg")


def mask_among_the_photos(root):
    Image.fromarray(SEMANTIC).save(root / "photos/a_mask.png")


def link_to_nothing(root):
    for folder in ("semantic", "instances"):
        (root / folder / "b.png").write_bytes((root / folder / "a.png").read_bytes())
    os.symlink(root / "nowhere.png", root / "photos/b.png")


@pytest.mark.parametrize(
    "change, reason",
    [
        (label_saved_as_rgb, "semantic/a.png: .* got PNG of mode RGB; all its pixels are grey: save it as grey"),
        (label_in_colors, "semantic/a.png: .* mode RGB; where colors stand for classes, `deeplab2-kmax convert voc`"),
        (label_as_jpeg, "semantic/a.png: expected a PNG with one number a pixel .* got JPEG"),
        (label_times_256, "semantic/a.png.*: 12 pixels with the value 256: expected the source_id of a class"),
        (labels_of_another_size, "photos/a.png: .*label of the image's size, 8 x 6 pixels, got one of 8 x 5$"),
        (
            turned_picture_with_turned_label,
            "6 x 8 pixels, got one of 8 x 6; one of them is turned, perhaps",
        ),
        (two_pictures_of_one_name, "photos/a.png: expected image names that differ, .*a.jpg has the same"),
        (mask_among_the_photos, "semantic/a_mask.png: no such file; expected it as label of .*photos/a_mask.png"),
        (link_to_nothing, "photos/b.png: cannot read the file: No such file"),
    ],
)
def test_refused_by_name(folders, change, reason):
    change(folders.root)
    with pytest.raises(DataError, match=reason):
        folders.labels()


def test_an_archive_in_place_of_a_folder(folders):
    archive = folders.root / "semantic.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(folders.root / "semantic/a.png", "a.png")
    with pytest.raises(DataError, match="semantic.zip: cannot read the folder: Not a directory"):
        folders.labels(semantic_folder=str(archive))


def test_labels_without_a_picture_are_told(folders, capsys):
    Image.fromarray(SEMANTIC).save(folders.root / "semantic/lost.png")
    assert list(folders.labels()) == ["a"]
    assert "semantic: left out 1 label without an image, such as lost.png" in capsys.readouterr().out


def test_pictures_in_the_folders_below_are_told(folders, capsys):
    (folders.root / "photos/more").mkdir()
    Image.fromarray(PHOTO).save(folders.root / "photos/more/b.png")
    assert list(folders.labels()) == ["a"]
    assert "photos: left out 1 picture in the folders below, such as " in capsys.readouterr().out
