"""Suggestions for mistyped names, texts that fit a terminal, and counts in all messages of the package."""

import ast
import pathlib
import re

import pytest

from deeplab2_kmax.wording import counted, did_you_mean, printable, similar, wrapped

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


def _plurals(tree):
    """The plural of each noun that a call of `counted` names."""
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and getattr(call.func, "id", None) == "counted":
            nouns = [noun.value for noun in call.args[1:] if isinstance(noun, ast.Constant)]
            yield from (noun if len(nouns) > 1 else f"{noun}s" for noun in nouns[-1:])


def _counts_in_strings(tree, plurals):
    """The f-strings, as "line: text", that put a number in front of a plural, whatever the number is."""
    plural = re.compile(rf" (?:{'|'.join(sorted(plurals))})\b(?![/\w])")
    for string in ast.walk(tree):
        if not isinstance(string, ast.JoinedStr):
            continue
        for before, number, text in zip([ast.Constant(""), *string.values], string.values, string.values[1:]):
            if not isinstance(number, ast.FormattedValue) or not isinstance(text, ast.Constant):
                continue
            # Constants of a module are known to be above 1, and a size such as "1 x 1" is not a count.
            constant = ast.unparse(number.value).split(".")[-1].isupper()
            size = isinstance(before, ast.Constant) and before.value.endswith(" x ")
            if plural.match(text.value) and not constant and not size:
                yield f"{string.lineno}: {ast.unparse(string)}"


def test_numbers_are_counted_by_the_one_helper():
    """No message can say "1 shards": a noun that is counted somewhere is counted by `counted` everywhere."""
    root = pathlib.Path(__file__).resolve().parents[1]
    files = [file for folder in ("deeplab2_kmax", "trainer", "evaluation") for file in (root / folder).rglob("*.py")]
    trees = {file: ast.parse(file.read_text()) for file in files}
    plurals = {plural for tree in trees.values() for plural in _plurals(tree)}
    assert {"images", "shards", "classes", "steps", "segments", "variables", "weights"} <= plurals
    found = [f"{file.relative_to(root)}:{each}" for file in files for each in _counts_in_strings(trees[file], plurals)]
    assert not found, "\n".join(found)


def test_a_plural_behind_a_number_is_found():
    tree = ast.parse('f"{len(files)} shards"; f"{counted(n)} kept"; f"{n} shards/s"; f"{SIZE} shards"')
    assert list(_counts_in_strings(tree, {"shards"})) == ["1: f'{len(files)} shards'"]


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (0, ("shard",), "0 shards"),
        (1, ("shard",), "1 shard"),
        (2, ("class", "classes"), "2 classes"),
        (1, ("class", "classes"), "1 class"),
        (3000, ("step",), "3,000 steps"),
    ],
)
def test_counted(number, noun, text):
    assert counted(number, *noun) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\ud800", "\\ud800"),
        ("a\udfff\udc7f", "a\\udfff\\udc7f"),
        ("stra\udcdfe", "stra\\xdfe"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
        ("\u2066x\u2069\u200f", "\\u2066x\\u2069\\u200f"),
        ("Straße \U0001f600\n", "Straße \U0001f600\n"),
    ],
)
def test_what_no_terminal_should_get_is_escaped(text, shown):
    assert printable(text) == shown
