"""EXIF orientation within a TensorFlow graph, which decodes pictures but does not turn them.

Cameras store the pixels as the sensor has them, and note how the camera was held. The note is a TIFF directory: in a
JPEG in a segment APP1 that begins with "Exif", in a PNG in a chunk eXIf.

Format: CIPA DC-008 (Exif 2.32), 4.5.4 and 4.6; the PNG specification, 11.3.4.5.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

_ORIENTATION = 0x0112
# The types of numbers that a directory may hold the orientation in, with their bytes: SHORT and LONG.
_SHORT, _LONG = 3, 4
_ENTRY, _COUNT = 12, 2
_LITTLE_ENDIAN = ord("I")
# JPEG: what a segment begins with, the segment that may hold EXIF, and the one after which only pixels come.
_MARKER, _APP1, _SCAN = 0xFF, 0xE1, 0xDA
_EXIF = [ord(letter) for letter in "Exif\0\0"]
# PNG: where chunks begin, the bytes of a chunk beside its data, and the chunk that holds EXIF.
_CHUNKS, _FRAME = 8, 12
_EXIF_CHUNK = [ord(letter) for letter in "eXIf"]
_PNG_START = ord("\x89")
# So that every number can be read whole, wherever a broken file ends.
_PADDING = b"\0" * 16

# (position) -> (whether EXIF begins there, where its TIFF directory would begin, the next position or -1).
_Step = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]


class _Bytes:
    """The bytes of a file as numbers; `size` is int64. Reading behind the end gives zeros or the last bytes."""

    def __init__(self, content: tf.Tensor) -> None:
        self._bytes = tf.io.decode_raw(content + _PADDING, tf.uint8)
        self.size = tf.size(self._bytes, tf.int64)

    def at(self, position: tf.Tensor, count: int) -> tf.Tensor:
        """`count` bytes from `position`, a scalar or [N], as int64 [..., count]."""
        places = position[..., tf.newaxis] + tf.range(count, dtype=tf.int64)
        return tf.cast(tf.gather(self._bytes, tf.clip_by_value(places, 0, self.size - 1)), tf.int64)

    def number(self, position: tf.Tensor, count: int, is_little: bool | tf.Tensor = False) -> tf.Tensor:
        """The numbers of `count` bytes that begin at `position`, int64, the most significant byte first or last."""
        powers = tf.constant([256**place for place in reversed(range(count))], tf.int64)
        values = self.at(position, count)
        return tf.reduce_sum(values * tf.where(is_little, powers[::-1], powers), -1)

    def equal(self, position: tf.Tensor, expected: list[int]) -> tf.Tensor:
        """Whether these bytes stand at `position`, a scalar."""
        return tf.reduce_all(self.at(position, len(expected)) == expected)


def orientation_of(content: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation of a picture file.

    Args:
        content: scalar string, the content of the file.

    Returns:
        Scalar int64, 1 to 8; 1, upright, where the file does not say.
    """
    data = _Bytes(content)
    zero = tf.constant(0, tf.int64)
    is_png = data.at(zero, 1)[0] == _PNG_START
    start = tf.cond(is_png, lambda: _find(data, _CHUNKS, _png_step(data)), lambda: _find(data, 2, _jpeg_step(data)))
    return tf.cond(start > 0, lambda: _orientation_at(data, start), lambda: tf.ones([], tf.int64))


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns and mirrors an image as its EXIF orientation asks.

    Args:
        image: [H, W, C].
        orientation: scalar, see `orientation_of`.

    Returns:
        [H, W, C], or [W, H, C] for orientations from 5 on.
    """

    def is_one_of(*values: int) -> tf.Tensor:
        return tf.reduce_any(orientation == tf.constant(values, orientation.dtype))

    def unchanged() -> tf.Tensor:
        return image

    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, [1, 0, 2]), unchanged)
    image = tf.cond(is_one_of(2, 3, 6, 7), lambda: tf.reverse(image, [1]), unchanged)
    return tf.cond(is_one_of(3, 4, 7, 8), lambda: tf.reverse(image, [0]), unchanged)


def _find(data: _Bytes, first: int, step: _Step) -> tf.Tensor:
    """Where the TIFF directory of a file's EXIF data begins; negative where there are none."""

    def next_step(position: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        found, start, following = step(position)
        nothing = tf.constant(-1, tf.int64)
        return tf.where(found, nothing, following), tf.where(found, start, nothing)

    return tf.while_loop(
        lambda position, start: (start < 0) & (position > 0) & (position < data.size - len(_PADDING)),
        next_step,
        (tf.constant(first, tf.int64), tf.constant(-1, tf.int64)),
    )[1]


def _jpeg_step(data: _Bytes) -> _Step:
    def step(position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        marker, kind = tf.unstack(data.at(position, 2))
        length = data.number(position + 2, 2)
        ends = (marker != _MARKER) | (kind == _SCAN) | (length < 2)
        # Any number of fill bytes, which equal the first byte of a marker, may stand before the second.
        following = tf.where(
            kind == _MARKER, position + 1, tf.where(ends, tf.constant(-1, tf.int64), position + 2 + length)
        )
        found = (marker == _MARKER) & (kind == _APP1) & data.equal(position + 4, _EXIF)
        return found, position + 4 + len(_EXIF), following

    return step


def _png_step(data: _Bytes) -> _Step:
    def step(position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        following = position + data.number(position, 4) + _FRAME
        return data.equal(position + 4, _EXIF_CHUNK), position + 8, following

    return step


def _orientation_at(data: _Bytes, start: tf.Tensor) -> tf.Tensor:
    """The orientation in the TIFF directory whose header is at `start`; 1 where it has none."""
    is_little = data.at(start, 1)[0] == _LITTLE_ENDIAN
    directory = start + data.number(start + 4, 4, is_little)
    # A broken directory may claim more entries than the file has bytes.
    count = tf.minimum(data.number(directory, _COUNT, is_little), tf.maximum(data.size - directory, 0) // _ENTRY)
    entries = directory + _COUNT + _ENTRY * tf.range(count, dtype=tf.int64)
    tags, types = data.number(entries, 2, is_little), data.number(entries + 2, 2, is_little)
    short, long = data.number(entries + 8, 2, is_little), data.number(entries + 8, 4, is_little)
    is_orientation = (tags == _ORIENTATION) & ((types == _SHORT) | (types == _LONG))
    values = tf.boolean_mask(tf.where(types == _SHORT, short, long), is_orientation)
    value = tf.concat([values, tf.ones([1], tf.int64)], 0)[0]
    return tf.where((value >= 1) & (value <= 8), value, tf.ones_like(value))
