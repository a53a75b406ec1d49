"""Shards are found by patterns, on local and remote storage, and a data set without records is refused."""

import pytest

from deeplab2_kmax import files
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.records.shards import filled_shards, find_shards


@pytest.fixture(params=["local", "ram://"])
def folder(request, tmp_path):
    """A folder with the shards train-0 (empty), train-1 and val-0."""
    folder = str(tmp_path) if request.param == "local" else "ram://shards"
    for name, content in [("train-0", b""), ("train-1", b"records"), ("val-0", b"records")]:
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
