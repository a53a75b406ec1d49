"""Where the records of a TFRecord file lie, also in a file that is damaged.

Each record is stored as its length (8 bytes), a checksum of the length (4), its data, and a checksum of the data (4).
A sound length leads to the next record even where the data are damaged. Where a length is damaged, the next record is
found by its header: 12 bytes of which the last four are the checksum of the first eight.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

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
    # Byte by byte in Python: slow, but only records beside damaged ones are read like this.
    crc, table = 0xFFFFFFFF, _TABLE.tolist()
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return data if _mask(np.array([crc], np.uint32)).tobytes() == checksum else None


def _end_of_record(file: BinaryIO, offset: int, size: int) -> int | None:
    """Where the record that begins at `offset` ends; None: there is no sound header, or the file ends before it."""
    file.seek(offset)
    header = file.read(_HEADER)
    if len(header) < _HEADER:
        return None
    length, checksum = struct.unpack("<QI", header)
    end = offset + _FRAME + length
    if end > size or checksum != _masked_checksums(np.frombuffer(header[:8], np.uint8))[0]:
        return None
    return end


def _next_header(file: BinaryIO, offset: int, size: int) -> int:
    """The first place from `offset` on where a whole record begins; the file's end where there is none."""
    while offset < size:
        file.seek(offset)
        part = np.frombuffer(file.read(_SEARCHED_AT_ONCE), np.uint8)
        if len(part) < _HEADER:
            break
        found = _masked_checksums(part[: len(part) - 4])
        stored = sum(part[8 + i : 8 + i + len(found)].astype(np.uint32) << np.uint32(8 * i) for i in range(4))
        for place in np.flatnonzero(found == stored):
            if _end_of_record(file, offset + int(place), size) is not None:
                return offset + int(place)
        offset += len(found)
    return size


def _masked_checksums(data: np.ndarray) -> np.ndarray:
    """TFRecord's checksum (CRC-32C, rotated and shifted) of each 8 bytes in a row; [N] uint8 to [N - 7] uint32."""
    count = len(data) - 7
    crc = np.full(count, 0xFFFFFFFF, np.uint32)
    for i in range(8):
        crc = _TABLE[(crc ^ data[i : i + count]) & 0xFF] ^ (crc >> np.uint32(8))
    return _mask(crc)


def _mask(crc: np.ndarray) -> np.ndarray:
    crc = ~crc
    return ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(0xA282EAD8)


def _table() -> np.ndarray:
    """CRC-32C (Castagnoli, reflected polynomial 0x82F63B78) of each byte; [256] uint32."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> np.uint32(1)) ^ np.uint32(0x82F63B78), table >> np.uint32(1))
    return table.astype(np.uint32)


_TABLE = _table()
