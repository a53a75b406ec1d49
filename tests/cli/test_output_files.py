"""Pictures whose names no result could have still get results, and none keeps the others from theirs."""

import os

import pytest

from deeplab2_kmax.cli.output_files import for_each_picture, output_names, require_output_file, write_result
from deeplab2_kmax.errors import DataError, UserError


def test_names_are_those_of_the_pictures_and_differ():
    assert output_names(["x/a.jpg", "y/a.png", "a_2.png"]) == {"x/a.jpg": "a", "y/a.png": "a_2", "a_2.png": "a_2_2"}


@pytest.mark.parametrize("stem", ["x" * 250, "ä" * 120, os.fsdecode(b"stra\xdfe"), "a\nb"])
def test_names_that_results_cannot_have_are_changed(tmp_path, stem):
    reported, complained = [], []

    def work(image, folder, name):
        if image == "broken.png":
            raise DataError(f"{image}: no picture")
        write_result(os.path.join(folder, name + "_overlay.png"), b"pixels")
        return f"{image} -> {name}"

    images = [f"{stem}.png", "broken.png", "good.png"]
    assert for_each_picture(work, images, tmp_path, reported.append, complained.append) == 1
    assert len(list(tmp_path.iterdir())) == len(reported) == 2 and len(complained) == 1
    for line in (*reported, *complained):
        line.encode()  # Terminals take UTF-8.


def test_only_endings_of_pictures_are_dropped():
    images = ["clip.0002", "clip.0004", "x/clip.0004.JPG", "photo.ppm"]
    assert [*output_names(images).values()] == ["clip.0002", "clip.0004", "clip.0004_2", "photo"]


def test_names_reach_the_terminal_escaped_and_on_one_line(tmp_path):
    said = []

    def work(image, folder, name):
        if "broken" in image:
            raise DataError(f"{image}: no picture")
        return f"{image} -> {name}\n  a table"

    images = ["a\x1b[2Jb.png", "c\nerror: d.png", "broken\n\x9b2J.png"]
    assert for_each_picture(work, images, tmp_path, said.append, said.append) == 1
    assert said == [
        "a\\x1b[2Jb.png -> a_[2Jb\n  a table",
        "c\\nerror: d.png -> c_error: d\n  a table",
        "error: broken\\n\\x9b2J.png: no picture",
    ]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "--json: expected the path of a file, got ''"),
        ("-", "--json: expected the path of a file, got '-'"),
        ("in.json", "--json: expected a file to write, got .*in.json, which is read"),
        ("link.json", "--json: expected a file to write, got .*link.json, which is read"),
        ("val-1.tfrecord", "expected a file to write, got .*val-1.tfrecord, which is read"),
        ("folder", "--json: expected the path of a file, got the folder .*folder"),
        ("in.json/x.json", "--json: cannot write .*, as .*in.json is no folder that"),
    ],
)
def test_outputs_that_cannot_be_or_are_inputs_are_refused_before_the_work(tmp_path, path, message):
    (tmp_path / "in.json").write_text("{}")
    (tmp_path / "val-1.tfrecord").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "in.json")
    inputs = [str(tmp_path / "in.json"), str(tmp_path / "val-*.tfrecord")]
    with pytest.raises(UserError, match=message):
        require_output_file("--json", str(tmp_path / path) if len(path) > 1 else path, inputs)


def test_outputs_of_new_folders_and_devices_are_fine_and_nothing_is_left(tmp_path):
    for path in (str(tmp_path / "new/er/out.json"), "out.json", os.devnull, "ram://bucket/out.json"):
        require_output_file("--json", path, [str(tmp_path / "in.json")])
    assert not list(tmp_path.iterdir())
