"""The parser of tf.train.Example beside TensorFlow's."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.records.example import parse_example


def feature(value):
    if isinstance(value, bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    if isinstance(value, float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


VALUES = {
    "text": b"\0\xff and more",
    "long": bytes(70_000),
    "empty": b"",
    "zero": 0,
    "number": 640,
    "large": 2**63 - 1,
    "negative": -(2**63),
    "float": 0.5,
    "bär": b"name",
}


def test_reads_what_tensorflow_writes():
    example = tf.train.Example(features=tf.train.Features(feature={k: feature(v) for k, v in VALUES.items()}))
    assert parse_example(example.SerializeToString(), VALUES) == VALUES
    assert parse_example(memoryview(example.SerializeToString()), ("number",)) == {"number": 640}


def test_the_first_of_several_values_counts_and_features_without_values_are_left_out():
    several = tf.train.Feature(int64_list=tf.train.Int64List(value=[300, 2]))
    features = {"several": several, "none": tf.train.Feature(), "empty": feature(1)}
    features["empty"].int64_list.value.pop()
    data = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
    assert parse_example(data, features) == {"several": 300}


def test_whatever_the_bytes_are_it_ends_with_a_value_or_a_value_error():
    data = tf.train.Example(features=tf.train.Features(feature={"a": feature(b"text"), "b": feature(7)}))
    whole = bytearray(data.SerializeToString())
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(500):
        damaged = bytearray(whole)
        damaged[rng.integers(len(damaged))] = rng.integers(256)
        try:
            parse_example(bytes(damaged[: rng.integers(1, len(damaged) + 1)]), "ab")
        except ValueError:
            refused += 1
    assert refused > 100
    with pytest.raises(ValueError, match="it ends too early"):
        parse_example(bytes(whole[:-1]), "ab")
