"""Shards that were cut are noticed in training and evaluation, wherever the cut is; nothing is lost in silence."""

import json
import logging
import os

import pytest

from deeplab2_kmax.errors import DataError
from deeplab2_kmax.input_pipeline import build_dataset, data_errors
from deeplab2_kmax.records.tfrecord import regions
from helpers.pipeline_records import options, record, write


@pytest.fixture
def shard(tmp_path):
    """Four records."""
    return write(tmp_path / "train-00000-of-00001.tfrecord", [record(name=f"image {n}", seed=n) for n in range(4)])


def write_manifest(shard, images=4):
    size = os.path.getsize(shard)
    entry = {"shards": [{"name": os.path.basename(shard), "images": images, "bytes": size}]}
    with open(os.path.join(os.path.dirname(shard), "manifest.json"), "w", encoding="utf-8") as file:
        json.dump({"splits": {"train": entry}}, file)


def cut_after_two(shard, extra):
    """Leaves two records and some bytes of the third."""
    os.truncate(shard, list(regions(shard))[2].offset + extra)


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("extra", [1, 5, 8, 11, 12, 13])
def test_the_beginning_of_another_record_is_noticed(shard, extra, is_training):
    cut_after_two(shard, extra)
    with (
        pytest.raises(DataError, match=r"00001.tfrecord, record 2: ") as told,
        data_errors(options(shard), is_training),
    ):
        for _ in build_dataset(options(shard), is_training).take(20):
            pass
    if extra < 12:
        assert f"the file is cut within this record; bytes of it that are left: {extra}" in str(told.value)
    assert "\n" not in str(told.value) and "{{" not in str(told.value)


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("extra", [0, 7])
def test_by_its_manifest_a_cut_between_records_is_noticed(shard, extra, is_training):
    write_manifest(shard)
    build_dataset(options(shard), is_training)
    cut_after_two(shard, extra)
    with pytest.raises(DataError, match="with 4 records as the manifest.json beside it says, got .*; copy the file"):
        build_dataset(options(shard), is_training)


def test_where_bad_records_may_be_left_out_it_is_a_warning(shard, caplog):
    write_manifest(shard)
    cut_after_two(shard, 0)
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert len(list(build_dataset(options(shard, max_bad_records=3), False))) == 2
    assert "with 4 records as the manifest.json beside it says" in caplog.text
