"""Reads a serialized tf.train.Example without TensorFlow, as far as records of ours and of DeepLab2 use it.

An Example is a protocol buffer: a map from keys to lists of bytes, floats or whole numbers. Its messages have one field
each that matters here, so that a few lines read it; protobuf's own parser would need generated code, of which
TensorFlow registers the same messages.

Wire format: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterator
from typing import Union

Value = Union[bytes, int, float]

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3
_LARGEST_VARINT = 10


def parse_example(data: bytes | memoryview, keys: Container[str]) -> dict[str, Value]:
    """Features of an Example: the first value of each, and none of those that are empty.

    Args:
        data: the serialized Example.
        keys: of the features to read. The others are passed over, without a look at their bytes.

    Raises:
        ValueError: the bytes are no Example; the message says what is wrong, as in "but <message>".
    """
    features: dict[str, Value] = {}
    for _, content in _fields(memoryview(data), 1):  # Example.features
        for _, entry in _fields(content, 1):  # Features.feature, a map
            parts = dict(_fields(entry, 1, 2))
            if 1 in parts and 2 in parts:
                key = bytes(parts[1]).decode(errors="backslashreplace")
                value = _first_value(parts[2]) if key in keys else None
                if value is not None:
                    features[key] = value
    return features


def _first_value(feature: memoryview) -> Value | None:
    for kind, values in _fields(feature, _BYTES_LIST, _FLOAT_LIST, _INT64_LIST):
        if kind == _BYTES_LIST:
            for _, value in _fields(values, 1):
                return bytes(value)
        elif kind == _INT64_LIST:
            # Packed, which is usual, or one by one: the field's content is a number, or numbers behind each other.
            for _, packed in _fields(values, 1):
                if len(packed):
                    number = _varint(packed, 0)[0]
                    return number - 2**64 if number >= 2**63 else number
        else:
            for _, packed in _fields(values, 1):
                if len(packed) >= 4:
                    value = struct.unpack("<f", packed[:4])[0]
                    return float(value)
    return None


def _fields(message: memoryview, *wanted: int) -> Iterator[tuple[int, memoryview]]:
    """The number and the content of the fields of a message whose numbers are wanted."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        number, wire = divmod(tag, 8)
        start = place
        if wire == _LENGTH:
            length, start = _varint(message, place)
            place = start + length
        elif wire == _VARINT:
            place = _varint(message, place)[1]
        elif wire in (_EIGHT_BYTES, _FOUR_BYTES):
            place += 8 if wire == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"byte {place} begins a field of an unknown kind, {wire}")
        if place > len(message):
            raise ValueError("it ends too early")
        if number in wanted:
            yield number, message[start:place]


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    number = 0
    for index, byte in enumerate(message[place : place + _LARGEST_VARINT]):
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return number, place + index + 1
    raise ValueError("it ends too early")
