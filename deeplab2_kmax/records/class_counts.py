"""Counts the pixels and segments of each class in a record."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from deeplab2_kmax.pictures.label_pngs import decode_numbers
from deeplab2_kmax.records import schema
from deeplab2_kmax.records.label_runs import LabelRuns


def count_classes(record: bytes, label_divisor: int) -> dict[int, tuple[int, int]] | None:
    """Counts the segments and pixels of each class in the label of a record.

    Args:
        record: a serialized tf.train.Example as `schema.encode_record` makes it.
        label_divisor: the label divisor of its panoptic ids. A semantic label, a PNG of class ids, needs none; there,
            all pixels of a class are one segment.

    Returns:
        {class id: (segments, pixels)}, void included; a crowd region is one segment of its class. None for a record
        without a label.

    Raises:
        DataError: the label is a PNG that cannot be decoded.
    """
    features = tf.train.Example.FromString(record).features.feature
    if schema.LABEL_ENCODED not in features:
        return None
    encoded = features[schema.LABEL_ENCODED].bytes_list.value[0]
    if features[schema.LABEL_FORMAT].bytes_list.value[0] == schema.PNG_LABEL.encode():
        # Class ids are panoptic ids with a divisor of 1.
        runs, label_divisor = LabelRuns(decode_numbers(encoded, "label")), 1
    else:
        runs = LabelRuns(np.frombuffer(encoded, schema.LABEL_DTYPE))
    counts: dict[int, tuple[int, int]] = {}
    for panoptic_id, area in runs.items():
        segments, pixels = counts.get(panoptic_id // label_divisor, (0, 0))
        counts[panoptic_id // label_divisor] = (segments + 1, pixels + area)
    return counts
