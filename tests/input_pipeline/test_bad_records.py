"""With max_bad_records bad records are left out, counted and listed, and nothing else is lost."""

import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.errors import DataError
from deeplab2_kmax.input_pipeline import BadRecords, build_dataset, data_errors
from deeplab2_kmax.records.tfrecord import Region, count_records, regions
from helpers.pipeline_records import changed, options, record, write

BROKEN_IMAGE = changed(record(), IMAGE_ENCODED=b"hello")
SHORT_LABEL = changed(record(), LABEL_ENCODED=b"1234")


def sound(name):
    return record(name=name, seed=ord(name))


def evaluate(path, limit, **fields):
    """Names that come out, and what was left out as (file name, index, reason)."""
    chosen, bad = options(path, max_bad_records=limit, **fields), BadRecords(limit)
    with data_errors(chosen, is_training=False):
        batches = list(build_dataset(chosen, is_training=False, bad_records=bad))
    names = [name.decode() for batch in batches for name in batch["image_name"].numpy()]
    return names, [(os.path.basename(each.shard), each.index, each.reason) for each in bad]


@pytest.fixture
def damaged(tmp_path):
    """Two shards; "c" has a flipped bit in its data, "d" in its length, and the second file ends within "h"."""
    first = tmp_path / "0"
    write(first, [sound(name) for name in "abcdef"])
    at = [region.offset for region in regions(str(first))]
    content = bytearray(first.read_bytes())
    content[at[2] + 50] ^= 1
    content[at[3] + 1] ^= 1
    first.write_bytes(content)
    second = write(tmp_path / "1", [sound(name) for name in "gh"])
    os.truncate(second, os.path.getsize(second) - 7)
    return str(tmp_path / "*")


@pytest.mark.parametrize("batch_size", [1, 3])
def test_left_out_and_listed(tmp_path, batch_size):
    write(tmp_path / "0", [sound("a"), BROKEN_IMAGE, sound("b")])
    write(tmp_path / "1", [SHORT_LABEL, sound("c")])
    names, bad = evaluate(str(tmp_path / "*"), 2, batch_size=batch_size)
    assert names == ["a", "b", "c"]
    assert [each[:2] for each in bad] == [("0", 1), ("1", 0)]
    assert "JPEG or PNG" in bad[0][2] and "label of another size" in bad[1][2]


def test_bad_records_behind_many_sound_ones_are_few_all_the_same(tmp_path):
    path = write(tmp_path / "0", [*(sound(name) for name in "abcdefgh"), BROKEN_IMAGE])
    names, bad = evaluate(path, 1)
    assert names == list("abcdefgh") and [each[:2] for each in bad] == [("0", 8)]


def test_one_more_than_allowed_stops(tmp_path):
    write(tmp_path / "0", [sound("a"), BROKEN_IMAGE, sound("b"), SHORT_LABEL, sound("c")])
    with pytest.raises(DataError, match="2 records cannot be used, max_bad_records is 1") as error:
        evaluate(str(tmp_path / "*"), 1)
    for part in ("0, record 1: ", "0, record 3: label of another size"):
        assert part in str(error.value)
    assert "Traceback" not in str(error.value)


def test_damaged_files_lose_no_more_than_what_is_damaged(damaged):
    names, bad = evaluate(damaged, 3)
    assert names == ["a", "b", "e", "f", "g"]
    assert [each[:2] for each in bad] == [("0", 2), ("0", 3), ("1", 1)]
    assert "checksum of its data is wrong" in bad[0][2]
    assert "no sound record begins here; left out: 1,680 bytes from byte 5040 on" in bad[1][2]
    assert [count_records(damaged[:-1] + name) for name in "01"] == [6, 2]


# A record is its length (8 bytes), a checksum of that (4), its data, and a checksum of the data (4).
@pytest.mark.parametrize("kept", [1, 11, 12, 50, -5, -4, -1])
def test_a_record_the_file_ends_within_is_damaged_wherever_the_file_ends(tmp_path, kept):
    path = write(tmp_path / "0", [sound("a"), sound("b")])
    first, second = regions(path)
    assert first.is_record and second.is_record
    assert (first.offset, first.size, first.size + second.size) == (0, second.offset, os.path.getsize(path))
    size = kept % second.size
    os.truncate(path, second.offset + size)
    assert list(regions(path)) == [first, Region(second.offset, size, is_record=False)]


def test_a_record_is_found_behind_whatever_does_not_belong_there(tmp_path):
    small = pathlib.Path(write(tmp_path / "small", [b"data"])).read_bytes()
    header = pathlib.Path(write(tmp_path / "large", [bytes(1000)])).read_bytes()[:12]
    # One stray byte; one and a sound header, whose record the file is too short for; and so much that the search goes
    # on with the next megabyte within a header.
    for stray in (b"?", b"?" + header, bytes(2**20 - 5)):
        path = tmp_path / "stray"
        path.write_bytes(stray + small)
        assert list(regions(str(path))) == [Region(0, len(stray), False), Region(len(stray), len(small), True)]


def test_damaged_files_shared_by_workers(damaged):
    names, bad = [], []
    for worker in range(3):
        chosen, found = options(damaged, max_bad_records=3, batch_size=3), BadRecords(3)
        context = tf.distribute.InputContext(3, worker, num_replicas_in_sync=3)
        for batch in build_dataset(chosen, False, context, bad_records=found):
            names += [name.decode() for name in batch["image_name"].numpy()]
        bad += [each.index for each in found]
    assert sorted(names) == list("abefg") and sorted(bad) == [1, 2, 3]


def test_file_of_something_else_entirely(tmp_path):
    path = tmp_path / "0"
    path.write_bytes(os.urandom(3000))
    write(tmp_path / "1", [sound("a")])
    names, bad = evaluate(str(tmp_path / "*"), 1)
    assert names == ["a"] and bad[0][:2] == ("0", 0) and "left out: 3,000 bytes from byte 0" in bad[0][2]


def training_batches(path, count, limit, **fields):
    augmentations = {"panoptic_copy_paste": {"panoptic_copy_paste_scale": 0.5}}
    chosen = options(path, max_bad_records=limit, batch_size=2, seed=4, augmentations=augmentations, **fields)
    bad = BadRecords(limit)
    with data_errors(chosen, is_training=True):
        found = [batch["image"].numpy() for batch in build_dataset(chosen, True, bad_records=bad).take(count)]
    return np.stack(found), bad


def test_training_counts_each_bad_record_once(tmp_path):
    path = write(tmp_path / "0", [sound("a"), BROKEN_IMAGE, sound("b"), SHORT_LABEL, sound("c")])
    # Twelve records are four epochs, of the records and of those to paste from.
    images, bad = training_batches(path, 6, 2)
    assert [each.index for each in bad] == [1, 3]
    np.testing.assert_array_equal(images, training_batches(path, 6, 2)[0])


def test_sound_data_give_the_same_batches_with_and_without_a_limit(tmp_path):
    path = write(tmp_path / "0", [sound(name) for name in "abcde"])
    images, bad = training_batches(path, 5, 3)
    np.testing.assert_array_equal(images, training_batches(path, 5, 0)[0])
    assert not len(bad)


def test_no_sound_record_at_all_stops(tmp_path):
    path = write(tmp_path / "0", [BROKEN_IMAGE])
    with pytest.raises(DataError, match="none of the records can be used:\n.*0, record 0: "):
        training_batches(path, 1, 5)


def test_vanished_file_is_no_bad_record(tmp_path):
    for name in "01":
        write(tmp_path / name, [sound("a")])
    chosen = options(str(tmp_path / "*"), max_bad_records=5)
    dataset = build_dataset(chosen, is_training=False)
    os.remove(tmp_path / "1")
    with pytest.raises(DataError, match=f"cannot read {tmp_path}/1: "), data_errors(chosen, is_training=False):
        list(dataset)
