"""The requests that TensorFlow Serving plays when it loads an export, so that no user waits for the first one."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from deeplab2_kmax import files
from deeplab2_kmax.protos import serving_request_pb2

# TensorFlow Serving looks for a file of this name in `assets.extra`.
REQUESTS = "tf_serving_warmup_requests"


def write_warm_up(path: str, size: tuple[int, int]) -> None:
    """Writes one request for each signature that takes pictures: a grey one of the network's input size.

    Args:
        path: of the file, TFRecords of PredictionLog.
        size: height and width of the pictures.

    Raises:
        OSError: it cannot be written.
    """
    picture = np.full((*size, 3), 127, np.uint8)
    inputs = {
        "serving_default": {"input_tensor": picture[np.newaxis]},
        "image": {"input_tensor": picture},
        "encoded": {"encoded": np.array([tf.io.encode_jpeg(picture).numpy()], object)},
    }
    files.make_folder(files.parent(path))
    with tf.io.TFRecordWriter(path) as writer:
        for signature, values in inputs.items():
            log = serving_request_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.signature_name = signature
            for name, value in values.items():
                request.inputs[name] = tf.make_tensor_proto(value).SerializeToString()
            writer.write(log.SerializeToString())
