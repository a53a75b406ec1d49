"""Decodes one record and tells what is wrong with it, whatever it is."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from PIL import Image

from deeplab2_kmax.dataset_check.faults import Fault, FaultKind, Limits
from deeplab2_kmax.dataset_check.labels import label_faults, segment_areas
from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.input_pipeline.checks import reason
from deeplab2_kmax.records import schema

# Pillow refuses images of more.
_MOST_PIXELS = 2 * Image.MAX_IMAGE_PIXELS
_NUMBERS = (schema.IMAGE_HEIGHT, schema.IMAGE_WIDTH)


class RecordContent(NamedTuple):
    """What a record holds, as far as it can be read.

    Attributes:
        name: the image's, empty where not even that can be read.
        image: [H, W, 3] uint8, or None.
        label: [H, W] int32 panoptic ids, or None.
        faults: what kept the rest from being read.
    """

    name: str
    image: np.ndarray | None
    label: np.ndarray | None
    faults: list[Fault]


class RecordFacts(NamedTuple):
    """What a check keeps of a record.

    Attributes:
        name: the image's, empty where not even that can be read.
        areas: {panoptic id: pixels}; None without a label that can be read.
        faults: sentences that say neither file nor record.
    """

    name: str
    areas: dict[int, int] | None
    faults: list[Fault]


def check_record(serialized: bytes, descriptor: DatasetDescriptor, has_labels: bool, limits: Limits) -> RecordFacts:
    """Decodes a record and checks its label.

    Args:
        serialized: a tf.train.Example, or what should be one.
        descriptor: the classes.
        has_labels: False for records that need no label.
        limits: what the model and the pipeline allow.
    """
    content = read_content(serialized, has_labels)
    if content.label is None:
        return RecordFacts(content.name, None, content.faults)
    areas = segment_areas(content.label)
    return RecordFacts(content.name, areas, [*content.faults, *label_faults(areas, descriptor, limits)])


def read_content(serialized: bytes, has_labels: bool) -> RecordContent:
    """Decodes what can be decoded of a record."""
    try:
        features = tf.train.Example.FromString(serialized).features.feature
    except DecodeError:
        fault = Fault(FaultKind.BROKEN_RECORD, f"its {len(serialized)} bytes are no tf.train.Example")
        return RecordContent("", None, None, [fault])
    faults = list(_missing_keys(features, has_labels))
    name = _first_bytes(features, schema.IMAGE_FILENAME).decode(errors="replace")
    if faults:
        return RecordContent(name, None, None, faults)
    height, width = (features[key].int64_list.value[0] for key in _NUMBERS)
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
    def __init__(self, kind: FaultKind, text: str):
        self.fault = Fault(kind, text)


def _missing_keys(features, has_labels: bool) -> Iterator[Fault]:
    needed = [key for key, kind in schema.feature_spec(has_labels).items() if kind.default_value is None]
    for key in needed:
        values = "int64_list" if schema.feature_spec(has_labels)[key].dtype == tf.int64 else "bytes_list"
        if key not in features or len(getattr(features[key], values).value) != 1:
            yield Fault(FaultKind.BROKEN_RECORD, f"it has no {key!r}")


def _first_bytes(features, key: str) -> bytes:
    values = features[key].bytes_list.value if key in features else ()
    return values[0] if values else b""


def _decode_image(encoded: bytes, height: int, width: int) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(encoded)) as picture:
            came = picture.height, picture.width
        if came[0] * came[1] > _MOST_PIXELS:
            raise _Refused(FaultKind.BROKEN_IMAGE, f"an image of {came[0]} x {came[1]} pixels is too large")
        pixels = tf.io.decode_image(encoded, channels=3, expand_animations=False).numpy()
    except tf.errors.OpError as error:
        raise _Refused(FaultKind.BROKEN_IMAGE, f"its image is broken: {reason(error)}") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        why = "not an image" if isinstance(error, Image.UnidentifiedImageError) else error
        raise _Refused(FaultKind.BROKEN_IMAGE, f"its image cannot be read: {why}") from error
    if pixels.shape[:2] != (height, width):
        raise _Refused(
            FaultKind.SIZE,
            f"its image is {pixels.shape[0]} x {pixels.shape[1]} (height x width), but the record says"
            f" {height} x {width}",
        )
    return pixels


def _decode_label(features, height: int, width: int) -> np.ndarray:
    label_format = _first_bytes(features, schema.LABEL_FORMAT).decode(errors="replace") or schema.RAW_LABEL
    if label_format != schema.RAW_LABEL:
        raise _Refused(
            FaultKind.BROKEN_RECORD,
            f"its label has the format {label_format!r}; mask transformers train on panoptic labels, format 'raw'",
        )
    encoded = _first_bytes(features, schema.LABEL_ENCODED)
    if height < 1 or width < 1 or len(encoded) != 4 * height * width:
        raise _Refused(
            FaultKind.SIZE,
            f"its label has {len(encoded)} bytes; an int32 label of the record's size {height} x {width} has"
            f" {4 * height * width}",
        )
    return np.frombuffer(encoded, schema.LABEL_DTYPE).reshape(height, width)
