"""Decodes one record, whatever its bytes are, and finds its faults."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from PIL import Image

from deeplab2_kmax.dataset_check.faults import Fault, FaultKind, Limits
from deeplab2_kmax.dataset_check.labels import label_faults, segment_areas
from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.input_pipeline.checks import reason
from deeplab2_kmax.names import safe_name
from deeplab2_kmax.pictures import MAX_PIXELS
from deeplab2_kmax.records import schema
from deeplab2_kmax.wording import counted, first_line

_SIZE_KEYS = (schema.IMAGE_HEIGHT, schema.IMAGE_WIDTH)

# The features of a tf.train.Example by key.
Features = Mapping[str, tf.train.Feature]


class RecordContent(NamedTuple):
    """The content of a record, as far as it can be decoded.

    Attributes:
        name: the name of the image; "" if not even that can be read.
        image: uint8 RGB [height, width, 3], or None.
        label: int32 panoptic ids [height, width], or None.
        faults: why something could not be decoded.
    """

    name: str
    image: np.ndarray | None
    label: np.ndarray | None
    faults: list[Fault]


class RecordFacts(NamedTuple):
    """The facts about a record that a check keeps.

    Attributes:
        name: the name of the image; "" if not even that can be read.
        areas: {panoptic id: number of pixels}; None if there is no label, or a broken one.
        faults: the faults; their sentences do not name file and record.
    """

    name: str
    areas: dict[int, int] | None
    faults: list[Fault]


def check_record(serialized: bytes, descriptor: DatasetDescriptor, has_labels: bool, limits: Limits) -> RecordFacts:
    """Decodes a record and checks its label.

    Args:
        serialized: the bytes of the record, which should be a tf.train.Example.
        descriptor: the classes.
        has_labels: False if the record needs no label.
        limits: the limits of the model and the input pipeline.
    """
    content = read_content(serialized, has_labels)
    if content.label is None:
        return RecordFacts(content.name, None, content.faults)
    areas = segment_areas(content.label)
    return RecordFacts(content.name, areas, [*content.faults, *label_faults(areas, descriptor, limits)])


def read_content(serialized: bytes, has_labels: bool) -> RecordContent:
    """Decodes a record, as far as that is possible. Never raises an error of the data, see `RecordContent.faults`."""
    try:
        features = tf.train.Example.FromString(serialized).features.feature
    except DecodeError:
        amount = counted(len(serialized), "byte")
        fault = Fault(FaultKind.BROKEN_RECORD, f"expected a tf.train.Example, got {amount} of something else")
        return RecordContent("", None, None, [fault])
    faults = list(_missing_keys(features, has_labels))
    encoded_name = _first_bytes(features, schema.IMAGE_FILENAME)
    name = encoded_name.decode(errors="backslashreplace")
    if faults:
        return RecordContent(name, None, None, faults)
    faults += _name_faults(encoded_name)
    height, width = (features[key].int64_list.value[0] for key in _SIZE_KEYS)
    image, label = None, None
    try:
        image = _decode_image(_first_bytes(features, schema.IMAGE_ENCODED), height, width)
    except _Refused as refused:
        faults.append(refused.fault)
    if has_labels:
        try:
            label = _decode_label(features, height, width)
        except _Refused as refused:
            faults.append(refused.fault)
    return RecordContent(name, image, label, faults)


class _Refused(Exception):
    """An image or a label cannot be decoded; holds the fault."""

    def __init__(self, kind: FaultKind, text: str) -> None:
        super().__init__(text)
        self.fault = Fault(kind, text)


def _missing_keys(features: Features, has_labels: bool) -> Iterator[Fault]:
    """A fault for each key that a record must have, but that is missing or does not hold exactly one value."""
    for key, feature in schema.feature_spec(has_labels).items():
        if feature.default_value is not None:
            continue
        values = "int64_list" if feature.dtype == tf.int64 else "bytes_list"
        if key not in features or len(getattr(features[key], values).value) != 1:
            yield Fault(FaultKind.BROKEN_RECORD, f"expected one value of {key!r}, got none or several")


def _name_faults(name: bytes) -> Iterator[Fault]:
    """Evaluation calls the files of an image by its name."""
    safe = safe_name(name)
    if safe.encode() != name:
        yield Fault(FaultKind.UNSAFE_NAME, f"no result can have the name {name!r}; evaluation will write {safe!r}")


def _first_bytes(features: Features, key: str) -> bytes:
    """The first value of a feature; b"" if there is none."""
    values = features[key].bytes_list.value if key in features else ()
    return values[0] if values else b""


def _decode_image(encoded: bytes, height: int, width: int) -> np.ndarray:
    """Decodes an image as training does: uint8 RGB [height, width, 3]. `height` and `width` are those of the record."""
    try:
        # TensorFlow would decode an image of any size until the memory is exhausted. Pillow reads the size only, and
        # refuses images of more than twice Image.MAX_IMAGE_PIXELS, unless a program has set that to None.
        with Image.open(io.BytesIO(encoded)) as header:
            _require_trainable(header, encoded)
        pixels: np.ndarray = tf.io.decode_image(encoded, channels=3, expand_animations=False).numpy()
    except tf.errors.OpError as error:
        raise _Refused(FaultKind.BROKEN_IMAGE, f"its image is broken: {reason(error)}") from error
    except _Refused:
        raise
    except Exception as error:  # Pillow fails at broken pictures by whatever error the damage leads to.
        why = "not an image" if isinstance(error, Image.UnidentifiedImageError) else first_line(error)
        raise _Refused(FaultKind.BROKEN_IMAGE, f"its image cannot be read: {why}") from error
    if pixels.shape[:2] != (height, width):
        raise _Refused(
            FaultKind.SIZE,
            f"expected an image of {height} x {width} pixels (height x width) as the record says, got"
            f" {pixels.shape[0]} x {pixels.shape[1]}",
        )
    return pixels


def _require_trainable(header: Image.Image, encoded: bytes) -> None:
    """Refuses images that can be decoded, but that training does not read: other formats, and too many pixels."""
    if schema.readable_format(encoded) is None:
        raise _Refused(FaultKind.BROKEN_IMAGE, f"expected a JPEG or PNG image, got {header.format}")
    if header.height * header.width > MAX_PIXELS:
        raise _Refused(
            FaultKind.BROKEN_IMAGE,
            f"expected an image of 1 to {MAX_PIXELS:,} pixels, got {header.height} x {header.width}",
        )


def _decode_label(features: Features, height: int, width: int) -> np.ndarray:
    """The label of a record: int32 [height, width], the size that the record gives for its image."""
    label_format = _first_bytes(features, schema.LABEL_FORMAT).decode(errors="replace") or schema.RAW_LABEL
    if label_format != schema.RAW_LABEL:
        raise _Refused(
            FaultKind.BROKEN_RECORD,
            f"expected a label of format 'raw' (panoptic ids, which mask transformers need), got {label_format!r}",
        )
    encoded = _first_bytes(features, schema.LABEL_ENCODED)
    if height < 1 or width < 1:
        raise _Refused(FaultKind.SIZE, f"expected a height and width of at least 1, got {height} x {width}")
    if len(encoded) != 4 * height * width:
        raise _Refused(
            FaultKind.SIZE,
            f"expected an int32 label of {counted(4 * height * width, 'byte')} for the record's size {height} x"
            f" {width}, got {counted(len(encoded), 'byte')}",
        )
    return np.frombuffer(encoded, schema.LABEL_DTYPE).reshape(height, width)
