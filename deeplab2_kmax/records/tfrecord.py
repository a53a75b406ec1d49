"""Where the records of a TFRecord file lie, also in a file that is damaged.

Each record is stored as its length (8 bytes), a checksum of the length (4), its data, and a checksum of the data (4).
A sound length leads to the next record even where the data are damaged. Where a length is damaged, the next record is
found by its header: 12 bytes of which the last four are the checksum of the first eight.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import google_crc32c
import numpy as np
import tensorflow as tf

_HEADER = 12
_FRAME = _HEADER + 4
_SEARCHED_AT_ONCE = 2**20


class Region(NamedTuple):
    """A stretch of a file that holds one record, or that holds no sound header.

    Attributes:
        offset, size: in bytes, the record's frame included.
        is_record: False where the header is damaged or the file ends within the record.
    """

    offset: int
    size: int
    is_record: bool


def regions(path: str) -> Iterator[Region]:
    """The records of a file in order, and the damaged stretches between them; reads headers only.

    The checksums of the data are not looked at. For sound files the n-th region is the n-th record.
    """
    size = tf.io.gfile.stat(path).length
    with tf.io.gfile.GFile(path, "rb") as file:
        offset = 0
        while offset < size:
            end = _end_of_record(file, offset, size)
            is_record = end is not None
            if not is_record:
                end = _next_header(file, offset + 1, size)
            yield Region(offset, end - offset, is_record)
            offset = end


def count_records(path: str) -> int:
    """How many regions a file has: its records, where it is sound."""
    return sum(1 for _ in regions(path))


def read_record(path: str, region: Region) -> bytes | None:
    """The data of one record, or None where their checksum is wrong."""
    with tf.io.gfile.GFile(path, "rb") as file:
        file.seek(region.offset)
        frame = file.read(region.size)
    data, checksum = frame[_HEADER:-4], frame[-4:]
    return data if checksum == struct.pack("<I", masked_checksum(data)) else None


def _end_of_record(file: BinaryIO, offset: int, size: int) -> int | None:
    """Where the record that begins at `offset` ends; None: there is no sound header, or the file ends before it."""
    file.seek(offset)
    header = file.read(_HEADER)
    if len(header) < _HEADER:
        return None
    length, checksum = struct.unpack("<QI", header)
    end = offset + _FRAME + length
    if end > size or checksum != masked_checksum(header[:8]):
        return None
    return end


def _next_header(file: BinaryIO, offset: int, size: int) -> int:
    """The first place from `offset` on where a whole record begins; the file's end where there is none."""
    while offset < size:
        file.seek(offset)
        part = np.frombuffer(file.read(_SEARCHED_AT_ONCE), np.uint8)
        count = len(part) - _HEADER + 1
        if count < 1:
            break
        # Nearly everywhere the eight bytes make a length that no file has: only the other places need a checksum.
        lengths = np.zeros(count, np.uint64)
        for i in range(8):
            lengths |= part[i : i + count].astype(np.uint64) << np.uint64(8 * i)
        for place in np.flatnonzero(lengths <= size - offset):
            if _end_of_record(file, offset + int(place), size) is not None:
                return offset + int(place)
        offset += count
    return size


def masked_checksum(data: bytes) -> int:
    """TFRecord's checksum of `data`: its CRC-32C, rotated and shifted so that data may hold checksums themselves."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
