"""Checkpoints with bytes damaged, and requests of all kinds to an exported model."""

import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from fuzz.damage import byte_damage, damaged_bytes, fuzzed
from fuzz.test_pictures_and_records import PICTURES
from fuzz.watched import declared_pixels, own_folder, watched
from hypothesis import given
from hypothesis import strategies as st

from deeplab2_kmax.checkpoints import load_checkpoint, save_checkpoint
from deeplab2_kmax.errors import DataError

PARTS = (".index", ".data-00000-of-00001")


class _FewWeights(tf.keras.Model):
    """Reading a checkpoint does not depend on what the model is, and of few variables it takes milliseconds."""

    def __init__(self):
        super().__init__()
        self.cluster_centers = self.add_weight("cluster_centers", [1, 16, 8], initializer="random_normal")
        self.head = tf.keras.layers.Dense(5)
        self.head.build([None, 8])


@pytest.fixture(scope="module")
def few_weights(tmp_path_factory):
    """(model, prefix of its checkpoint)."""
    model = _FewWeights()
    return model, save_checkpoint(model, str(tmp_path_factory.mktemp("few") / "ckpt-7"))


@fuzzed
@given(edits=byte_damage, part=st.sampled_from(PARTS))
def test_checkpoints(few_weights, tmp_path_factory, edits, part):
    model, checkpoint = few_weights
    before = [variable.numpy() for variable in model.variables]
    with own_folder(tmp_path_factory.getbasetemp()) as folder:
        prefix = str(pathlib.Path(folder) / "ckpt-7")
        for each in PARTS:
            shutil.copy(checkpoint + each, prefix + each)
        content = pathlib.Path(prefix + part).read_bytes()
        damaged = damaged_bytes(content, edits)
        pathlib.Path(prefix + part).write_bytes(damaged)
        watched(lambda: load_checkpoint(model, prefix), folder, 2 * len(content), several_lines=True)
    # Either refused, with nothing changed, or the damage was in bytes that hold no weight.
    for variable, value in zip(model.variables, before):
        np.testing.assert_array_equal(variable, value)


@pytest.fixture(scope="module")
def signatures(exported):
    return tf.saved_model.load(exported).signatures


@fuzzed
@given(content=st.sampled_from(PICTURES), edits=byte_damage)
def test_encoded_pictures_that_are_served(signatures, tmp_path_factory, content, edits):
    damaged = damaged_bytes(content, edits)

    def serve():
        try:
            signatures["encoded"](tf.constant([damaged]))
        # A server passes its text on to the client.
        except tf.errors.InvalidArgumentError as error:
            raise DataError(str(error).splitlines()[0].replace("{{node", "")) from error

    with own_folder(tmp_path_factory.getbasetemp()) as folder:
        watched(serve, folder, len(damaged), 50 * declared_pixels(damaged))


_DTYPES = ("uint8", "int64", "float32", "float64", "bool", "uint16", "complex64", "U3", "O")


@fuzzed
@given(
    # Few values: 65 x 65 x 65 x 65 of them would be a large input, not a strange one.
    shape=st.lists(st.sampled_from([0, 1, 2, 3, 4, 17, 65]), max_size=5).filter(lambda s: np.prod(s) <= 4 * 65 * 65),
    dtype=st.sampled_from(_DTYPES),
    fill=st.sampled_from([0, 1, 255, -1, 1e30, float("nan")]),
)
def test_arrays_given_to_the_predictor(predictor, tmp_path_factory, shape, dtype, fill):
    with np.errstate(all="ignore"):
        image = np.full(shape, fill).astype(dtype)
    with own_folder(tmp_path_factory.getbasetemp()) as folder:
        watched(lambda: predictor(image), folder, image.nbytes, 50 * 65 * 65)
