"""Finds the records of a TFRecord file, also where the file is damaged.

Each record is stored as its length (8 bytes, little-endian), a checksum of the length (4), its data, and a checksum of
the data (4). Where the length is sound, it leads to the next record even if the data are damaged. Where the length is
damaged, the next record is found by its header: 12 bytes of which the last four are the checksum of the first eight.

Format: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO, NamedTuple

import google_crc32c
import numpy as np

from deeplab2_kmax import files

_LENGTH = 8
_HEADER = _LENGTH + 4
# The bytes that a record takes beside its data, and so the least that a file with a record has.
FRAME_BYTES = _HEADER + 4
_SEARCHED_AT_ONCE = 2**20


class Region(NamedTuple):
    """A stretch of a file: one record, or damaged bytes between two records.

    Attributes:
        offset: where it begins, in bytes from the beginning of the file.
        size: in bytes; the size of a record includes its length and checksums.
        is_record: False where the header is damaged or the file ends within the record.
    """

    offset: int
    size: int
    is_record: bool


def regions(path: str) -> Iterator[Region]:
    """The records of a file in order, and the damaged stretches between them.

    Only headers are read, so the checksums of the data are not verified. In a file without damage, the n-th region is
    the n-th record.

    Raises:
        OSError: the file cannot be read.
    """
    size = files.size(path)
    with files.open_to_read(path) as file:
        offset = 0
        while offset < size:
            end = _end_of_record(file, offset, size)
            is_record = end is not None
            if end is None:
                end = _next_header(file, offset + 1, size)
            yield Region(offset, end - offset, is_record)
            offset = end


def count_records(path: str) -> int:
    """The number of regions of a file, which is that of its records where the file is not damaged.

    Raises:
        OSError: the file cannot be read.
    """
    return sum(1 for _ in regions(path))


def read_record(path: str, region: Region) -> bytes | None:
    """The data of one record, or None where they do not match their checksum.

    Args:
        path: the file.
        region: of that file, with `is_record` True.

    Raises:
        OSError: the file cannot be read.
    """
    with files.open_to_read(path) as file:
        file.seek(region.offset)
        frame = file.read(region.size)
    data, checksum = frame[_HEADER:-4], frame[-4:]
    return data if checksum == struct.pack("<I", masked_checksum(data)) else None


def data_of(frame: memoryview) -> memoryview:
    """The data of a record, without its length and checksums, which are not looked at."""
    return frame[_HEADER:-4]


def masked_checksum(data: bytes) -> int:
    """TFRecord's checksum of `data`: the CRC-32C, rotated by 15 bits and shifted by a constant, as uint32.

    The CRC of data that hold their own CRC is always the same. Masked checksums do not have this flaw, so data may hold
    checksums themselves.
    """
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _end_of_record(file: IO[bytes], offset: int, size: int) -> int | None:
    """Where the record that begins at `offset` ends; None if its header is damaged or the file of `size` bytes ends
    before the record."""
    file.seek(offset)
    header = file.read(_HEADER)
    if len(header) < _HEADER:
        return None
    length, checksum = struct.unpack("<QI", header)
    end: int = offset + FRAME_BYTES + length
    if end > size or checksum != masked_checksum(header[:_LENGTH]):
        return None
    return end


def _next_header(file: IO[bytes], offset: int, size: int) -> int:
    """The first place from `offset` on where a whole record begins; the end of the file if there is none."""
    while offset < size:
        file.seek(offset)
        part = file.read(_SEARCHED_AT_ONCE)
        count = len(part) - _HEADER + 1
        if count < 1:
            break
        for place in _possible_headers(part, count, size - offset):
            if _end_of_record(file, offset + place, size) is not None:
                return offset + place
        offset += count  # The next part begins with the last bytes of this one, in which no whole header fits.
    return size


def _possible_headers(part: bytes, count: int, longest: int) -> list[int]:
    """The offsets below `count` in `part` at which a length up to `longest` stands, followed by its checksum."""
    # Views of `part` with a number at each byte: one loop in Python over the bytes would take minutes for a large file.
    lengths: np.ndarray = np.ndarray(count, "<u8", part, strides=(1,))
    checksums: np.ndarray = np.ndarray(count, "<u4", part, offset=_LENGTH, strides=(1,))
    # Nearly everywhere, eight bytes make a length that no file has. Stretches of small numbers, such as labels or the
    # zeros that a crash has left, are full of possible lengths, but few of these differ.
    places = np.flatnonzero(lengths <= longest)
    values, value_of_place = np.unique(lengths[places], return_inverse=True)
    expected = np.array([masked_checksum(struct.pack("<Q", value)) for value in values.tolist()], np.uint32)
    return places[checksums[places] == expected[value_of_place]].tolist()
