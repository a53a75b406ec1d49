"""The sizes that a manifest tells, on local and remote storage; what is no manifest tells nothing."""

import json
import os

import pytest

from deeplab2_kmax import files
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.records.manifest import (
    ShardSize,
    faults_of_manifests,
    faults_of_sizes,
    read_splits,
    written_sizes,
)
from deeplab2_kmax.records.shards import find_whole_shards


def entry(*shards):
    return {"shards": [{"name": name, "images": images, "bytes": size} for name, images, size in shards]}


@pytest.fixture(params=["local", "ram://"])
def folder(request, tmp_path):
    """Two shards of 400 bytes, one of which had 900."""
    folder = str(tmp_path) if request.param == "local" else f"ram://manifests{tmp_path}"
    for name in ("train-0", "train-1", "val-0"):
        files.write_bytes(files.join(folder, name), bytes(400))
    splits = {"train": entry(("train-0", 2, 400), ("train-1", 1234, 900)), "val": entry(("gone", 3, 70))}
    files.write_json(files.join(folder, "manifest.json"), {"splits": splits})
    return folder


def test_shards_of_another_size_are_named(folder):
    shards = [files.join(folder, name) for name in ("train-0", "train-1", "val-0")]
    assert faults_of_sizes(shards) == {
        shards[1]: "expected 900 bytes with 1,234 records as the manifest.json beside it says, got 400 bytes"
    }
    with pytest.raises(DataError, match=r"train-1: expected 900 bytes.* got 400 bytes; copy the file again"):
        find_whole_shards(shards, "own")
    assert find_whole_shards([shards[0], shards[2]], "own") == [shards[0], shards[2]]
    assert find_whole_shards(shards, "own", is_tolerant=True) == shards


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b'{"splits": [1]}',
        b'{"splits": {"a": 1, "b": {"shards": 2}, "c": {"shards": [3, {}]}}}',
    ],
)
def test_what_is_no_manifest_of_ours_tells_nothing(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content)
    assert written_sizes(str(tmp_path)) == {}


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"null", b'{"splits": {"a": {"sha', None])
def test_a_manifest_that_tells_nothing_is_mentioned(tmp_path, caplog, content):
    """As nobody would notice otherwise that files were cut."""
    shard, manifest = tmp_path / "a", tmp_path / "manifest.json"
    shard.write_bytes(bytes(100))
    assert faults_of_manifests([str(shard)]) == {}
    if content is None:
        os.mkfifo(manifest)
    else:
        manifest.write_bytes(content)
    assert find_whole_shards([str(shard)], "own") == [str(shard)]
    assert f"{manifest}: expected the manifest that conversion writes" in caplog.text


def test_without_a_manifest_there_are_no_splits(tmp_path):
    assert read_splits(str(tmp_path)) == {}
    (tmp_path / "manifest.json").write_text(json.dumps({"splits": {"train": entry(("a", 1, 2))}}))
    assert written_sizes(str(tmp_path)) == {"a": ShardSize(1, 2)}
