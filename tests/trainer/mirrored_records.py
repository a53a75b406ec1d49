"""Records that training takes as they are: each image its own mirror image, so that a flip changes nothing."""

import pathlib

import numpy as np
import tensorflow as tf

from deeplab2_kmax.converters.shapes import convert_shapes
from deeplab2_kmax.input_pipeline import schema


def write_symmetric_shapes(folder: pathlib.Path, train: int, val: int, size: int) -> None:
    """Drawn scenes, the right half of each the mirror image of the left, in two shards a split."""
    convert_shapes(str(folder), num_train=train, num_val=val, size=size, num_shards=2, num_processes=1)
    for shard in folder.glob("*.tfrecord"):
        records = [_symmetric(record.numpy()) for record in tf.data.TFRecordDataset(str(shard))]
        with tf.io.TFRecordWriter(str(shard)) as writer:
            for record in records:
                writer.write(record)


def _symmetric(serialized: bytes) -> bytes:
    features = tf.train.Example.FromString(serialized).features.feature
    value = {name: list(feature.bytes_list.value or feature.int64_list.value)[0] for name, feature in features.items()}
    image = tf.io.decode_image(value[schema.IMAGE_ENCODED]).numpy()
    label = np.frombuffer(value[schema.LABEL_ENCODED], schema.LABEL_DTYPE).reshape(image.shape[:2])
    half = (image.shape[1] + 1) // 2
    image, label = (np.concatenate([x[:, :half], x[:, : half - 1][:, ::-1]], axis=1) for x in (image, label))
    name = value[schema.IMAGE_FILENAME].decode()
    return schema.encode_record(tf.io.encode_png(image).numpy(), "png", name, np.ascontiguousarray(label))
