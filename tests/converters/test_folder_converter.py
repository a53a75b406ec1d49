"""Folders of images and label PNGs become records; what is missing or wrong is named."""

import json
import os
import unicodedata

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab2_kmax import files
from deeplab2_kmax.converters.folder import convert_folder
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.records import schema

CLASSES = [
    {"id": 1, "source_id": 10, "is_thing": True, "name": "car"},
    {"id": 2, "source_id": 20, "is_thing": False, "name": "road"},
]


@pytest.fixture
def folders(tmp_path):
    """Arguments of convert_folder for five images (one a PNG, one grey), each with a car of number 300 on a road."""
    for folder in ("photos", "semantic", "instances"):
        (tmp_path / folder).mkdir()
    for number in range(5):
        image = np.random.RandomState(number).randint(0, 256, (12, 16, 3), np.uint8)
        picture = Image.fromarray(image).convert("L" if number == 1 else "RGB")
        picture.save(tmp_path / "photos" / (f"p{number}.png" if number == 2 else f"p{number}.JPG"), format=None)
        semantic = np.full((12, 16), 20, np.uint8)
        semantic[2:6, number : number + 3] = 10
        Image.fromarray(semantic).save(tmp_path / "semantic" / f"p{number}.png")
        Image.fromarray((semantic == 10).astype(np.uint16) * 300).save(tmp_path / "instances" / f"p{number}.png")
    arguments = {f"{name}_folder": str(tmp_path / name) for name in ("semantic", "instance")}
    arguments["instance_folder"] += "s"
    return {
        **arguments,
        "dataset": _descriptor(tmp_path, CLASSES),
        "image_folder": str(tmp_path / "photos"),
        "output_dir": str(tmp_path / "records"),
        "num_processes": 1,
    }


def _descriptor(folder, classes):
    content = {"name": "own", "ignore_label": 0, "label_divisor": 256, "classes": classes}
    (folder / "own.json").write_text(json.dumps(content))
    return str(folder / "own.json")


def _records(paths):
    for record in tf.data.TFRecordDataset(paths):
        features = tf.io.parse_single_example(record, schema.feature_spec())
        yield {key: value.numpy() for key, value in features.items()}


def test_records_hold_images_and_labels(folders):
    (path,) = convert_folder(**folders)
    records = list(_records([path]))
    assert [r[schema.IMAGE_FILENAME] for r in records] == [b"p0", b"p1", b"p2", b"p3", b"p4"]
    assert [r[schema.IMAGE_FORMAT] for r in records] == [b"jpeg", b"jpeg", b"png", b"jpeg", b"jpeg"]
    for number, record in enumerate(records):
        expected = np.full((12, 16), 2 * 256, np.int32)
        expected[2:6, number : number + 3] = 256 + 1
        np.testing.assert_array_equal(np.frombuffer(record[schema.LABEL_ENCODED], "<i4").reshape(12, 16), expected)


def test_a_fraction_goes_to_val(folders):
    train, val = convert_folder(val_fraction=0.4, **folders)
    names = [[r[schema.IMAGE_FILENAME] for r in _records([path])] for path in (train, val)]
    assert names == [[b"p0", b"p1", b"p3"], [b"p2", b"p4"]]


def test_a_split_may_be_called_val(folders):
    (path,) = convert_folder(split="val", **folders)
    assert len(list(_records([path]))) == 5


def test_classes_alone_have_to_be_stuff(folders, tmp_path):
    del folders["instance_folder"]
    with pytest.raises(
        DataError, match=r"own.json has things \(car\); give --instance_folder, or set is_thing to false"
    ):
        convert_folder(**folders)
    _descriptor(tmp_path, [{**entry, "is_thing": False} for entry in CLASSES])
    (path,) = convert_folder(**folders)
    labels = [set(np.frombuffer(r[schema.LABEL_ENCODED], "<i4").tolist()) for r in _records([path])]
    assert labels == [{256, 512}] * 5


def test_labels_in_cityscapes_style(tmp_path):
    """labelIds and instanceIds beside each other, a crowd (26 < 1000) and stuff with its class as instance number."""
    semantic = np.array([[7, 7, 26, 26, 3, 26]], np.uint8)
    instances = np.array([[7, 7, 26001, 26000, 3, 26]], np.uint16)
    Image.fromarray(np.zeros((1, 6, 3), np.uint8)).save(tmp_path / "ulm_1_leftImg8bit.png")
    Image.fromarray(semantic).save(tmp_path / "ulm_1_gtFine_labelIds.png")
    Image.fromarray(instances).save(tmp_path / "ulm_1_gtFine_instanceIds.png")
    (path,) = convert_folder(
        dataset=_descriptor(tmp_path, [{**CLASSES[0], "source_id": 26}, {**CLASSES[1], "source_id": 7}]),
        image_folder=str(tmp_path),
        semantic_folder=str(tmp_path),
        instance_folder=str(tmp_path),
        output_dir=str(tmp_path / "records"),
        image_suffix="_leftImg8bit.png",
        semantic_suffix="_gtFine_labelIds.png",
        instance_suffix="_gtFine_instanceIds.png",
        no_instance_below=1000,
        void_values=[0, 3],
        num_processes=1,
    )
    (record,) = _records([path])
    assert record[schema.IMAGE_FILENAME] == b"ulm_1"
    assert np.frombuffer(record[schema.LABEL_ENCODED], "<i4").tolist() == [512, 512, 258, 257, 0, 256]


@pytest.mark.parametrize(
    "break_it, message",
    [
        (lambda f, a: (f / "semantic/p3.png").unlink(), "semantic/p3.png: no such file; expected it as label of .*p3"),
        (lambda f, a: (f / "photos/p3.png").write_bytes(b""), "image names that differ.*p3.JPG has the same"),
        (lambda f, a: (f / "photos/p3.JPG").write_bytes(b"GIF89a"), "p3.JPG: .*expected a picture .*got 6 bytes"),
        (lambda f, a: Image.new("L", (3, 3), 20).save(f / "semantic/p3.png"), "p3.png with .*p3.png: .*same size"),
        (lambda f, a: a.update(image_folder=str(f / "none")), "none: cannot read the folder: No such file"),
        (lambda f, a: a.update(image_folder=str(f)), r"expected images \(\*.jpg, \*.jpeg, \*.png, .*\), got none"),
        (lambda f, a: a.update(void_values=["20"]), "void_values: .*source_id of a class, got 20, that of 'road'"),
        (lambda f, a: a.update(void_values=["red"]), "void_values: expected whole numbers.*got red"),
        (lambda f, a: a.update(void_values=[0, "red", None]), "void_values: expected whole numbers.*got 0,red,None"),
        (lambda f, a: a.update(void_values=[1.5]), "void_values: expected whole numbers.*got 1.5"),
        (lambda f, a: a.update(val_fraction=1.0), "val_fraction: expected a share from 0 to below 1, got 1"),
    ],
)
def test_faults_are_named_and_nothing_is_written(folders, tmp_path, break_it, message):
    break_it(tmp_path, folders)
    with pytest.raises(DataError, match=message):
        convert_folder(**folders)
    assert not list(tmp_path.glob("records/*.tfrecord"))


def test_void_values_may_be_numbers_and_text(folders, tmp_path):
    semantic = np.full((12, 16), 7, np.uint8)
    semantic[:, 5:] = 255
    Image.fromarray(semantic).save(tmp_path / "semantic" / "p0.png")
    (path,) = convert_folder(void_values=[7, "255"], **folders)
    label = np.frombuffer(next(_records([path]))[schema.LABEL_ENCODED], "<i4")
    assert set(label.tolist()) == {0}


def test_images_and_labels_on_remote_storage(folders, tmp_path):
    local = convert_folder(**folders)
    remote = {**folders, "output_dir": str(tmp_path / "of remote"), "dataset": "ram://folder/own.json"}
    files.write_bytes(remote["dataset"], (tmp_path / "own.json").read_bytes())
    for kind, name in (("image", "photos"), ("semantic", "semantic"), ("instance", "instances")):
        remote[f"{kind}_folder"] = f"ram://folder/{name}"
        for path in (tmp_path / name).iterdir():
            files.write_bytes(f"ram://folder/{name}/{path.name}", path.read_bytes())
    # One process, as others do not see the files that this one holds in memory.
    (path,) = convert_folder(**remote)
    assert files.read_bytes(path) == files.read_bytes(local[0])
    with pytest.raises(DataError, match="ram://folder/none: cannot read the folder"):
        convert_folder(**{**remote, "image_folder": "ram://folder/none", "output_dir": str(tmp_path / "none")})
    with pytest.raises(DataError, match="output_dir: expected a local folder .*got ram://folder/out"):
        convert_folder(**{**remote, "output_dir": "ram://folder/out"})


def test_a_label_of_another_size_than_its_picture_is_named(folders, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "photos/p0.JPG", format="jpeg")
    with pytest.raises(DataError, match=r"photos/p0.JPG: .*size, 8 x 8 pixels, got one of 16 x 12"):
        convert_folder(**folders)


def test_hidden_files_are_passed_over(folders, tmp_path):
    """As macOS leaves them on disks of other systems and in archives."""
    for folder in ("photos", "semantic", "instances"):
        for name in ("._p0.JPG", "._p0.png", ".DS_Store", ".hidden.png"):
            (tmp_path / folder / name).write_bytes(b"\0\5\26\7" + bytes(60))
    (path,) = convert_folder(**folders)
    assert [r[schema.IMAGE_FILENAME] for r in _records([path])] == [b"p0", b"p1", b"p2", b"p3", b"p4"]


def test_a_picture_of_an_unread_format_that_has_a_label_is_named(folders, tmp_path):
    for name in ("photos/p5.HEIC", "photos/notes.txt", "photos/p0.json"):
        (tmp_path / name).write_bytes(b"....ftypheic")
    (path,) = convert_folder(**folders)
    (tmp_path / "semantic/p5.png").write_bytes((tmp_path / "semantic/p4.png").read_bytes())
    with pytest.raises(DataError, match="photos/p5.HEIC: expected a picture .*, as it has a label p5.png; save it"):
        convert_folder(**{**folders, "output_dir": str(tmp_path / "other")})


def test_names_in_an_older_encoding_are_named(folders, tmp_path):
    for folder, ending in (("photos", "JPG"), ("semantic", "png"), ("instances", "png")):
        old = os.fsencode(tmp_path / folder / "p0.") + ending.encode()
        os.rename(old, old.replace(b"p0", b"Stra\xdfe"))
    with pytest.raises(DataError, match=r"photos/Stra\\xdfe.JPG: expected a file name in UTF-8, .*rename") as raised:
        convert_folder(**folders)
    str(raised.value).encode()  # Can be printed.


def test_accents_of_two_forms_are_one_name(folders, tmp_path):
    os.rename(tmp_path / "photos/p0.JPG", tmp_path / "photos" / unicodedata.normalize("NFC", "caf\u00e9.JPG"))
    for folder in ("semantic", "instances"):
        os.rename(tmp_path / folder / "p0.png", tmp_path / folder / unicodedata.normalize("NFD", "caf\u00e9.png"))
    (path,) = convert_folder(**folders)
    assert "caf\u00e9".encode() in [r[schema.IMAGE_FILENAME] for r in _records([path])]


def test_pictures_of_all_formats_are_converted(folders, tmp_path):
    pixels = np.random.RandomState(7).randint(0, 256, (12, 16, 3), np.uint8)
    for ending, options in {"tif": {}, "bmp": {}, "webp": {"lossless": True}}.items():
        (tmp_path / "photos/p0.JPG").unlink(missing_ok=True)
        Image.fromarray(pixels).save(tmp_path / f"photos/p0.{ending}", **options)
        (path,) = convert_folder(**{**folders, "output_dir": str(tmp_path / ending)})
        record = next(_records([path]))
        assert record[schema.IMAGE_FORMAT] == b"png"
        np.testing.assert_array_equal(tf.io.decode_image(record[schema.IMAGE_ENCODED]), pixels)
        (tmp_path / f"photos/p0.{ending}").unlink()
