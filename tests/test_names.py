"""Names that data give to files stay below their folder, fit file systems, and stay apart."""

import os
import random

import pytest

from deeplab2_kmax.names import result_name, safe_name, without_ending


@pytest.mark.parametrize("name", ["a", "aachen/aachen_000019", "ä ö", "a:b*?", "..a", "a..b", ".hidden", "x" * 180])
def test_names_that_files_can_have_stay_as_they_are(name):
    assert safe_name(name) == name
    assert safe_name(name.encode()) == name


@pytest.mark.parametrize(
    "name, safe",
    [
        ("../../etc/passwd", "etc/passwd"),
        ("/etc/passwd", "etc/passwd"),
        ("a/../../b", "a/b"),
        ("a//./b/", "a/b"),
        ("..", "unnamed"),
        ("", "unnamed"),
        ("a\0b\nc", "a_b_c"),
        (b"stra\xdfe", "stra\\xdfe"),
        (os.fsdecode(b"stra\xdfe"), "stra\\udcdfe"),
    ],
)
def test_others_are_made_safe(name, safe):
    assert safe_name(name) == safe


def test_long_names_are_cut_and_stay_apart():
    first, second = (safe_name("ä" * 200 + end) for end in "ab")
    assert first != second and max(len(first.encode()), len(second.encode())) <= 180
    assert first.startswith("ä" * 80)


def test_no_name_leaves_its_folder(tmp_path):
    draw = random.Random(0)
    alphabet = ["..", "/", ".", "\0", "a", "\\", "~", "\n", "\udcff", "ä", "x" * 100, " ", "://", "%2e"]
    for _ in range(2000):
        name = "".join(draw.choices(alphabet, k=draw.randrange(8)))
        path = os.path.normpath(tmp_path / safe_name(name))
        assert path.startswith(f"{tmp_path}{os.sep}") and len(os.path.basename(path).encode()) <= 180
        assert "\0" not in path


@pytest.mark.parametrize("ending", [".jpg", ".JPEG", ".png", ".bmp", ".tif", ".TIFF", ".webp", ".gif", ".ppm", ".jp2"])
def test_endings_of_pictures_are_dropped_once(ending):
    assert without_ending(f"a/b.c{ending}") == "a/b.c"
    assert without_ending(f"b{ending}{ending}") == f"b{ending}"


@pytest.mark.parametrize("name", ["clip.0002", "v1.5/frame", "St. Gallen", "a.", "a.b.c", ".png", "jpg", "", "a.png/b"])
def test_what_follows_another_dot_is_part_of_the_name(name):
    assert without_ending(name) == name


def test_names_of_results_are_those_of_deeplab2():
    names = ["aachen_000000_000019_leftImg8bit.png", "000000000139.jpg", "train/ADE_val_1", "aachen/a.b.png"]
    assert [result_name(name) for name in names] == [os.path.splitext(name)[0] for name in names]
