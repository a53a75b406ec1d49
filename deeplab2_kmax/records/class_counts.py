"""What is in a record: pixels and segments of each class, read from the record itself."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from deeplab2_kmax.records import schema
from deeplab2_kmax.records.label_runs import LabelRuns


def count_classes(record: bytes, label_divisor: int) -> dict[int, tuple[int, int]] | None:
    """Segments and pixels of each class in the label of a record.

    Args:
        record: a serialized tf.train.Example as `schema.encode_record` makes it.
        label_divisor: of its panoptic ids. A PNG label has one segment a class.

    Returns:
        {class id: (segments, pixels)}, void among the classes; None for a record without a label. A crowd region is a
        segment of its class.
    """
    features = tf.train.Example.FromString(record).features.feature
    if schema.LABEL_ENCODED not in features:
        return None
    encoded = features[schema.LABEL_ENCODED].bytes_list.value[0]
    if features[schema.LABEL_FORMAT].bytes_list.value[0] == schema.PNG_LABEL.encode():
        runs, label_divisor = LabelRuns(np.asarray(schema.open_image(encoded, "label"))), 1
    else:
        runs = LabelRuns(np.frombuffer(encoded, schema.LABEL_DTYPE))
    counts: dict[int, tuple[int, int]] = {}
    for panoptic_id, area in zip(runs.values.tolist(), runs.areas.tolist()):
        segments, pixels = counts.get(panoptic_id // label_divisor, (0, 0))
        counts[panoptic_id // label_divisor] = (segments + 1, pixels + area)
    return counts
