"""Suggestions for mistyped names, and texts that fit a terminal."""

import pytest

from deeplab2_kmax.wording import did_you_mean, similar, wrapped

FIELDS = ["batch_size", "base", "crop_size", "steps_per_loop"]


@pytest.mark.parametrize(
    ("typed", "names", "meant"),
    [
        ("batchsize", FIELDS, "batch_size"),
        ("batch-size", FIELDS, "batch_size"),
        ("BatchSize", FIELDS, "batch_size"),
        ("croop_size", FIELDS, "crop_size"),
        ("kmaens", ["max", "cmt", "kmax"], "kmax"),
        ("SGD", ["adam", "sgd"], "sgd"),
        # A part of a name, which has few letters in common with the whole.
        ("coco", ["ade20k_panoptic", "coco_panoptic"], "coco_panoptic"),
    ],
)
def test_the_name_that_was_meant(typed, names, meant):
    assert similar(typed, names) == [meant]
    assert did_you_mean(typed, names) == f"; did you mean {meant!r}?"


@pytest.mark.parametrize("typed", ["xyzzy", "", "pa"])
def test_nothing_is_suggested_without_likeness(typed):
    assert similar(typed, ["coco_panoptic", "shapes"]) == []
    assert did_you_mean(typed, ["coco_panoptic", "shapes"]) == ""


def test_several_suggestions_come_by_likeness():
    names = ["unlike", "kmax_r101", "kmax_r50"]
    assert similar("kmax_r5", names, at_most=2) == ["kmax_r50", "kmax_r101"]
    assert did_you_mean("kmax_r5", names, at_most=3) == "; did you mean 'kmax_r50' or 'kmax_r101'?"


def test_wrapped_lines_fit_and_say_the_same():
    text = "a list of things:\n    " + "first " * 30 + "\n    " + "second-thing " * 20
    lines = wrapped(text, 40, prefix="note: ").splitlines()
    assert max(map(len, lines)) <= 40
    assert lines[0] == "note: a list of things:"
    assert all(line.startswith("      ") for line in lines[1:])
    # Lines of the list are told from those that go on with one.
    starts = [line.split()[0] for line in lines[1:] if not line.startswith(" " * 12)]
    assert starts == ["first", "second-thing"]
    assert " ".join(" ".join(lines).split()) == "note: " + " ".join(text.split())


def test_long_words_stay_whole():
    path = "/a/path/that-is/" + "long" * 30
    assert path in wrapped(f"see {path} for more", 40).splitlines()
