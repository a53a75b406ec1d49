"""Checkpoints as files, on this machine and on remote storage (`ram://`, TensorFlow's file system in memory)."""

import uuid

import pytest
import tensorflow as tf

from deeplab2_kmax.checkpoints import open_checkpoint


@pytest.fixture(params=["local", "remote"])
def folder(request, tmp_path) -> str:
    """An empty folder that nothing else uses."""
    return str(tmp_path) if request.param == "local" else f"ram://checkpoints/{uuid.uuid4().hex}"


def test_a_checkpoint_is_opened_by_its_prefix(folder):
    prefix = tf.train.Checkpoint(v=tf.Variable([1.0, 2.0])).write(f"{folder}/ckpt-1")
    reader = open_checkpoint(prefix)
    key = "v/.ATTRIBUTES/VARIABLE_VALUE"
    assert reader.has_tensor(key)
    assert reader.get_variable_to_shape_map()[key] == [2]
    assert reader.get_tensor(key).tolist() == [1.0, 2.0]


def test_a_checkpoint_that_is_not_there(folder):
    with pytest.raises(tf.errors.NotFoundError):
        open_checkpoint(f"{folder}/ckpt-1")
