"""Checkpoints as files, on this machine and on remote storage (`ram://`, TensorFlow's file system in memory)."""

import errno
import os
import uuid

import pytest
import tensorflow as tf

from deeplab2_kmax import files
from deeplab2_kmax.checkpoints import open_checkpoint, resolve_checkpoint
from deeplab2_kmax.checkpoints.cleanup import clear_leftovers
from deeplab2_kmax.checkpoints.files import delete_checkpoint, fingerprint, is_whole, link_checkpoint, name_latest
from deeplab2_kmax.checkpoints.integrity import fault_of, last_whole_checkpoint, recorded_checkpoints
from deeplab2_kmax.errors import CheckpointError


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
    with pytest.raises(CheckpointError, match=f"^{folder}/ckpt-1: not a readable checkpoint: "):
        open_checkpoint(f"{folder}/ckpt-1")


def test_a_hidden_checkpoint_is_not_a_missing_one(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(files, "change_stamp", refuse)  # root, who may run the tests, may read everything.
    with pytest.raises(CheckpointError, match=f"^cannot read {tmp_path}/ckpt-1.index: Permission denied$"):
        resolve_checkpoint(tmp_path / "ckpt-1")


def test_a_path_that_cannot_be_one(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        resolve_checkpoint(f"{tmp_path}/\0")


def test_a_pipe_in_place_of_data_is_refused_at_once(tmp_path):
    prefix = tf.train.Checkpoint(v=tf.Variable(1.0)).write(f"{tmp_path}/ckpt-1")
    os.remove(f"{prefix}.data-00000-of-00001")
    os.mkfifo(f"{prefix}.data-00000-of-00001")
    with pytest.raises(CheckpointError, match="ckpt-1.data-00000-of-00001: expected a file, got a pipe"):
        fault_of(prefix)


def test_a_checkpoint_is_linked_recorded_and_deleted(folder):
    prefix = tf.train.Checkpoint(v=tf.Variable(1.0)).write(f"{folder}/run/ckpt-1")
    linked = link_checkpoint(prefix, f"{folder}/best")
    name_latest(linked)
    assert linked == f"{folder}/best/ckpt-1" and is_whole(linked)
    assert fingerprint(linked) == fingerprint(prefix)
    assert last_whole_checkpoint(f"{folder}/best") == linked
    delete_checkpoint(linked)
    assert not is_whole(linked) and is_whole(prefix)
    with pytest.raises(FileNotFoundError):
        link_checkpoint(linked, f"{folder}/elsewhere")
    with pytest.raises(FileNotFoundError):
        fingerprint(linked)


def test_a_damaged_checkpoint_is_passed_over(folder):
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(v=tf.Variable(1.0)), folder, max_to_keep=None)
    whole, damaged = (manager.save(checkpoint_number=step) for step in (1, 2))
    files.write_bytes(f"{damaged}.index", b"no index")
    assert last_whole_checkpoint(folder) == whole
    assert recorded_checkpoints(folder) == [damaged, whole]
    clear_leftovers(folder)
    assert recorded_checkpoints(folder) == [whole]


def test_a_remote_folder_stands_for_its_last_whole_checkpoint():
    folder = f"ram://checkpoints/{uuid.uuid4().hex}"
    with pytest.raises(CheckpointError, match=f"no such checkpoint: '{folder}'"):
        resolve_checkpoint(folder)
    prefix = tf.train.CheckpointManager(tf.train.Checkpoint(v=tf.Variable(1.0)), folder, 1).save(checkpoint_number=3)
    assert resolve_checkpoint(folder) == resolve_checkpoint(prefix) == prefix
