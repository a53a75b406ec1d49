"""Records are found as TensorFlow frames them, and after damage the search finds the next sound one, quickly."""

import struct
import time

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax import files
from deeplab2_kmax.records.tfrecord import Region, count_records, masked_checksum, read_record, regions

RECORDS = [b"first", b"", b"x" * 1000, bytes(range(256))]
# Length, its checksum, checksum of the data.
FRAME = 16


def written(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return str(path)


def damaged(path, records, place):
    """A file of these records with a flipped bit in the byte at `place`."""
    written(path, records)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    return str(path)


def test_regions_of_a_sound_file_are_its_records(tmp_path):
    path = written(tmp_path / "sound", RECORDS)
    found = list(regions(path))
    assert all(region.is_record for region in found)
    assert [region.size for region in found] == [FRAME + len(record) for record in RECORDS]
    assert [read_record(path, region) for region in found] == RECORDS
    assert count_records(path) == len(RECORDS)


def test_masked_checksums_are_those_that_tensorflow_writes(tmp_path):
    records = [b"", b"\0", b"123456789", np.random.RandomState(0).bytes(100_000)]
    written(tmp_path / "file", records)
    content = (tmp_path / "file").read_bytes()
    for record in records:
        length = struct.pack("<Q", len(record))
        frame = (
            length + struct.pack("<I", masked_checksum(length)) + record + struct.pack("<I", masked_checksum(record))
        )
        assert content.startswith(frame)
        content = content[len(frame) :]
    assert not content
    # The check value of CRC-32C, 0xE3069283, masked.
    assert masked_checksum(b"123456789") == (((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF)


@pytest.mark.parametrize("place", [0, 7, 8, 11])
def test_after_a_damaged_header_the_next_record_is_found(tmp_path, place):
    path = damaged(tmp_path / "damaged", RECORDS, place)
    first, *others = regions(path)
    assert first == Region(0, FRAME + len(RECORDS[0]), is_record=False)
    assert [read_record(path, region) for region in others] == RECORDS[1:]


def test_damaged_data_cost_one_record(tmp_path):
    path = damaged(tmp_path / "damaged", RECORDS, FRAME + len(RECORDS[0]) + FRAME + 500)
    found = list(regions(path))
    assert all(region.is_record for region in found)
    assert [read_record(path, region) for region in found] == [RECORDS[0], RECORDS[1], None, RECORDS[3]]


@pytest.mark.parametrize("missing", [1, 4, 255, 260, FRAME + 255])
def test_a_file_that_ends_within_a_record(tmp_path, missing):
    path = tmp_path / "cut"
    written(path, RECORDS)
    path.write_bytes(path.read_bytes()[:-missing])
    *whole, cut = regions(str(path))
    assert [read_record(str(path), region) for region in whole] == RECORDS[:-1]
    assert cut == Region(sum(region.size for region in whole), FRAME + 256 - missing, is_record=False)


def test_a_record_whose_length_has_the_right_checksum_but_passes_the_end_of_the_file_is_no_record(tmp_path):
    length = struct.pack("<Q", 100)
    header = length + struct.pack("<I", masked_checksum(length))
    (tmp_path / "file").write_bytes(header + bytes(99 + 4))
    assert [region.is_record for region in regions(str(tmp_path / "file"))] == [False]
    (tmp_path / "file").write_bytes(header + bytes(100 + 4))
    assert [region.is_record for region in regions(str(tmp_path / "file"))] == [True]


# The search reads a mebibyte at a time: a header may lie across the border of two such parts.
@pytest.mark.parametrize("size", [2**20 - FRAME + shift for shift in (-12, -11, -1, 0, 1)])
def test_the_next_record_is_found_wherever_it_lies(tmp_path, size):
    path = damaged(tmp_path / "damaged", [b"\xff" * size, b"next"], 3)
    found = list(regions(path))
    assert found == [Region(0, FRAME + size, is_record=False), Region(FRAME + size, FRAME + 4, is_record=True)]
    assert read_record(path, found[1]) == b"next"


# Lengths that a file could have: at each byte among zeros, as in void labels and in blocks that a crash left empty; at
# every fourth byte in labels; nearly nowhere in images.
CONTENTS = {
    "zeros": lambda size: bytes(size),
    "small numbers": lambda size: np.random.RandomState(0).randint(0, 2**16, size // 8).astype("<i8").tobytes(),
    "noise": lambda size: np.random.RandomState(0).bytes(size),
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_the_search_through_20_megabytes_takes_seconds_at_most(tmp_path, kind):
    size = 20_000_000
    path = damaged(tmp_path / "damaged", [CONTENTS[kind](size), b"next"], 3)
    start = time.monotonic()
    found = list(regions(path))
    # A second on an idle machine; hundreds where each place is looked at by itself.
    assert time.monotonic() - start < 30
    assert [region.is_record for region in found] == [False, True]
    assert read_record(path, found[1]) == b"next"


def test_remote_files():
    path = "ram://tfrecord/file"
    files.make_folder(files.parent(path))
    written(path, RECORDS)
    assert [read_record(path, region) for region in regions(path)] == RECORDS
    with pytest.raises(FileNotFoundError):
        count_records("ram://tfrecord/none")
