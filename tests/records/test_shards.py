"""Shards are found by patterns, on local and remote storage, and a data set without records is refused."""

import logging
import os
import uuid

import pytest

from deeplab2_kmax import files
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.records.shards import filled_shards, find_shards, find_whole_shards


@pytest.fixture(params=["local", "ram://"])
def folder(request, tmp_path):
    """A folder with the shards train-0 (empty), train-1 and val-0."""
    folder = str(tmp_path) if request.param == "local" else "ram://shards"
    for name, content in [("train-0", b""), ("train-1", b"records of some bytes"), ("val-0", b"records of some bytes")]:
        files.write_bytes(files.join(folder, name), content)
    return folder


def test_files_that_match_are_found_once_and_sorted(folder):
    patterns = [files.join(folder, "*-1"), files.join(folder, "train-*")]
    shards = find_shards(patterns, "shapes")
    assert shards == [files.join(folder, name) for name in ("train-0", "train-1")]
    assert filled_shards(shards) == shards[1:]


@pytest.mark.parametrize(
    "pattern, message",
    [
        ("test-*", "no TFRecord file matches file_pattern '.*test-.*working directory .*converters.shapes"),
        ("train-0", "file_pattern .*train-0' matches 1 file without any records, e.g. .*train-0 is empty .*converters"),
    ],
)
def test_no_records_is_an_error_that_tells_how_to_make_them(folder, pattern, message):
    with pytest.raises(DataError, match=message):
        find_shards([files.join(folder, pattern)], "shapes")


@pytest.mark.parametrize("size", [1, 5, 15])
def test_files_that_are_too_small_for_a_record_are_named(tmp_path, size):
    """TensorFlow takes fewer bytes than a header for an empty file; training would wait for records for ever."""
    (tmp_path / "train-0").write_bytes(bytes(400))
    (tmp_path / "train-1").write_bytes(bytes(size))
    with pytest.raises(DataError, match=f"train-1: expected a TFRecord file, got {size} bytes?, fewer than any record"):
        find_shards([f"{tmp_path}/train-*"], "own")


def test_hidden_files_are_passed_over():
    folder = f"ram://shards/{uuid.uuid4().hex}"
    for name in ("train-0", "._train-0"):
        files.write_bytes(f"{folder}/{name}", bytes(400))
    assert find_shards([f"{folder}/*train-*"], "own") == [f"{folder}/train-0"]


def test_the_manifest_is_no_shard(tmp_path):
    for name in ("manifest.json", "train-0"):
        (tmp_path / name).write_bytes(bytes(400))
    assert find_shards([f"{tmp_path}/*"], "own") == [f"{tmp_path}/train-0"]


def test_what_is_no_file_is_refused(tmp_path):
    """A link whose file was not fetched; a pipe, which nobody writes to; a folder."""
    (tmp_path / "train-0").write_bytes(bytes(400))
    for kind, make in (
        ("a link to /nowhere, which is not there", lambda path: path.symlink_to("/nowhere")),
        ("a pipe", os.mkfifo),
        ("a folder", lambda path: path.mkdir()),
    ):
        path = tmp_path / f"train-{len(kind)}"
        make(path)
        with pytest.raises(DataError, match=f"{path}: expected a TFRecord file, got {kind}; copy or fetch"):
            find_shards([f"{tmp_path}/train-*"], "own")
        path.rmdir() if path.is_dir() else path.unlink()


def test_a_number_beyond_its_set_is_refused(tmp_path):
    numbered(str(tmp_path), 0, 1, 2, 3, 4)
    with pytest.raises(DataError, match=r"expected numbers below 00004, got 00004, as if two sets were mixed"):
        find_whole_shards([f"{tmp_path}/train-*"], "own")


def numbered(folder, *numbers, count=4, split="train"):
    for number in numbers:
        files.write_bytes(files.join(folder, f"{split}-{number:05}-of-{count:05}.tfrecord"), bytes(400))


@pytest.fixture(params=["local", "ram://"])
def three_of_four(request, tmp_path):
    """Shards 0, 1 and 3 of four, beside another split that is whole."""
    folder = str(tmp_path) if request.param == "local" else f"ram://shards/{uuid.uuid4().hex}"
    numbered(folder, 0, 1, 3)
    numbered(folder, 0, 1, count=2, split="val")
    return folder


@pytest.mark.parametrize("pattern", ["*", "*.tfrecord", "train-*", "train-?????-of-00004.tfrecord", "train-0000[0-3]*"])
def test_a_missing_shard_of_a_numbered_set_is_named(three_of_four, pattern, caplog):
    patterns = [files.join(three_of_four, pattern)]
    message = r"train-\*-of-00004.tfrecord: expected 4 files, got 3 without train-00002-of-00004.tfrecord; copy the"
    with pytest.raises(DataError, match=message):
        find_whole_shards(patterns, "own")
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert len(find_whole_shards(patterns, "own", is_tolerant=True)) >= 3
    assert "expected 4 files, got 3 without train-00002-of-00004.tfrecord" in caplog.text


def test_a_missing_shard_that_is_named_itself_is_missing_too(three_of_four):
    patterns = [files.join(three_of_four, f"train-{number:05}-of-00004.tfrecord") for number in (1, 2)]
    with pytest.raises(DataError, match="expected 2 files, got 1 without train-00002-of-00004.tfrecord"):
        find_whole_shards(patterns, "own")


@pytest.mark.parametrize("pattern", ["val-*", "train-0000[013]*", "train-00001-of-00004.tfrecord", "train-*-of-00002*"])
def test_shards_that_no_pattern_asks_for_are_not_missing(three_of_four, pattern):
    numbered(three_of_four, 0, 1, count=2)
    pattern = files.join(three_of_four, pattern)
    assert find_whole_shards([pattern], "own") == files.glob(pattern)


def test_of_many_missing_shards_the_first_are_named(tmp_path):
    numbered(str(tmp_path), 7, count=1000)
    with pytest.raises(
        DataError, match="expected 1,000 files, got 1 without train-00000-of-01000.* and 996 more; copy"
    ):
        find_whole_shards([f"{tmp_path}/*"], "own")
