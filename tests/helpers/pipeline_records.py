"""Small records for the tests of this folder: PNG images, whose pixels survive encoding."""

import io

import numpy as np
import tensorflow as tf
from PIL import Image

from deeplab2_kmax.protos import dataset_pb2
from deeplab2_kmax.records import schema

# Classes of the `shapes` data set: things 1..4, stuff 5..8, void 0, divisor 256.
CIRCLE, SQUARE, SKY, GRASS = 1, 2, 5, 6


def pixels(height, width, seed=0):
    """A smooth-free random RGB image, uint8."""
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3), np.uint8)


def labels(height, width, segments=((CIRCLE, 1), (SKY, 0), (SQUARE, 1), (CIRCLE, 2)), seed=0):
    """A random panoptic map of the given (class, instance) pairs, int32."""
    ids = np.array([c * 256 + i for c, i in segments], np.int32)
    return ids[np.random.RandomState(seed).randint(0, len(ids), (height, width))]


def png(image):
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, format="png")
    return encoded.getvalue()


def record(height=12, width=16, name="picture", seed=0, label=None):
    """One serialized, sound record."""
    label = labels(height, width, seed=seed) if label is None else label
    return schema.encode_record(png(pixels(height, width, seed)), "png", name, label)


def changed(serialized, **replaced):
    """The record with features replaced by bytes or a number; keys are those of `schema` without folder marks."""
    example = tf.train.Example.FromString(serialized)
    for constant, value in replaced.items():
        feature = example.features.feature[getattr(schema, constant)]
        kind = feature.bytes_list if isinstance(value, bytes) else feature.int64_list
        kind.value[0] = value
    return example.SerializeToString()


def write(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for serialized in records:
            writer.write(serialized)
    return str(path)


def options(pattern, **fields):
    """DatasetOptions for the shapes data set, crop 17x21, one image a batch unless said otherwise."""
    values = {"dataset": "shapes", "batch_size": 1, "crop_size": [17, 21], "max_thing_id": 8, **fields}
    patterns = [pattern] if isinstance(pattern, str) else pattern
    return dataset_pb2.DatasetOptions(file_pattern=patterns, **values)
