"""Which checkpoint of a folder counts, after accidents."""

import logging
import os

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.checkpoints.cleanup import clear_leftovers
from deeplab2_kmax.checkpoints.integrity import fault_of, last_whole_checkpoint, recorded_checkpoints
from deeplab2_kmax.errors import CheckpointError


@pytest.fixture(name="folder")
def folder_fixture(tmp_path):
    """ckpt-2, ckpt-4 and ckpt-6 as TensorFlow writes them,."""
    folder = tmp_path / "run"
    value = tf.Variable(np.arange(1000.0))
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(value=value), str(folder), max_to_keep=5)
    for step in (2, 4, 6):
        value.assign_add(tf.ones_like(value))
        manager.save(step)
    return folder


def index(folder, step=6):
    return folder / f"ckpt-{step}.index"


def data(folder, step=6):
    return folder / f"ckpt-{step}.data-00000-of-00001"


def cut(path, to):
    os.truncate(path, to)


def flip(path):
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "data cut short": lambda folder: cut(data(folder), 1000),
    "data empty": lambda folder: cut(data(folder), 0),
    "a bit of the data flipped": lambda folder: flip(data(folder)),
    "data gone": lambda folder: data(folder).unlink(),
    "index cut short": lambda folder: cut(index(folder), 100),
    "index empty": lambda folder: cut(index(folder), 0),
    "index gone": lambda folder: index(folder).unlink(),
    "index of another checkpoint": lambda folder: index(folder).write_bytes(index(folder, 4).read_bytes()),
    "all of it gone": lambda folder: (index(folder).unlink(), data(folder).unlink()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_where_the_newest_is_damaged_the_one_before_counts(folder, damage, caplog):
    assert last_whole_checkpoint(str(folder)) == str(folder / "ckpt-6")
    DAMAGES[damage](folder)
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert last_whole_checkpoint(str(folder)) == str(folder / "ckpt-4")
        # Said once, however often it is asked.
        assert last_whole_checkpoint(str(folder)) == str(folder / "ckpt-4")
    assert [record.getMessage().count(f"not used: {folder}/ckpt-6: ") for record in caplog.records] == [1]


@pytest.mark.parametrize("content", [b"", b"model_checkpoint_pa", b"\xff\xfe", None])
def test_without_a_state_file_the_highest_step_counts(folder, content):
    state = folder / "checkpoint"
    state.unlink() if content is None else state.write_bytes(content)
    assert last_whole_checkpoint(str(folder)) == str(folder / "ckpt-6")


def test_the_state_file_decides_where_its_checkpoint_is_whole(folder):
    # As people go back to an earlier one.
    (folder / "checkpoint").write_text('model_checkpoint_path: "ckpt-2"\n')
    assert last_whole_checkpoint(str(folder)) == str(folder / "ckpt-2")


def test_nothing_is_trained_anew_over_checkpoints_that_are_all_damaged(folder):
    for step in (2, 4, 6):
        cut(data(folder, step), 10)
    with pytest.raises(CheckpointError, match=r"(?s)none of the checkpoints in .* is whole.*ckpt-6: .*ckpt-4: "):
        last_whole_checkpoint(str(folder))


def test_a_disk_that_cannot_be_read_now_is_no_damage(folder):
    index(folder).unlink()
    index(folder).mkdir()
    with pytest.raises(CheckpointError, match="cannot read .*ckpt-6.index"):
        last_whole_checkpoint(str(folder))


def test_no_folder_no_checkpoint(tmp_path):
    assert last_whole_checkpoint(str(tmp_path / "nothing")) is None
    assert last_whole_checkpoint(str(tmp_path)) is None


def interrupt_write(folder, step, moment):
    """The files of a process that died while it wrote `step`; see the module's docstring for the order."""
    content, table = data(folder, 6).read_bytes(), index(folder, 6).read_bytes()
    if moment == "tensors":
        temporary = folder / f"ckpt-{step}_temp"
        temporary.mkdir()
        (temporary / "part-00000-of-00001.data-00000-of-00001.tempstate42").write_bytes(content[:500])
    elif moment == "index":
        data(folder, step).write_bytes(content)
    elif moment == "half an index":
        data(folder, step).write_bytes(content)
        index(folder, step).write_bytes(table[:100])
    elif moment == "state":
        (folder / f"checkpoint.tmp{'0' * 32}").write_text('model_checkpoint_path: "ck')


MOMENTS = ("tensors", "index", "half an index", "state")


@pytest.mark.parametrize("moment", MOMENTS)
def test_what_an_interrupted_write_leaves_is_no_checkpoint_and_is_cleared(folder, moment, capsys):
    before = sorted(os.listdir(folder))
    interrupt_write(folder, 8, moment)
    left = sorted(set(os.listdir(folder)) - set(before))
    assert left and last_whole_checkpoint(str(folder)) == str(folder / "ckpt-6")
    clear_leftovers(str(folder))
    assert sorted(os.listdir(folder)) == before
    assert f"left behind: {', '.join(left)}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interrupted_first_write_starts_anew(folder, moment):
    interrupt_write(folder, 8, moment)
    kept = {f"ckpt-8{end}" for end in ("_temp", ".index", ".data-00000-of-00001")} | {f"checkpoint.tmp{'0' * 32}"}
    for path in folder.iterdir():
        if path.name not in kept:
            path.unlink()
    assert last_whole_checkpoint(str(folder)) is None
    clear_leftovers(str(folder))
    assert list(folder.iterdir()) == []


def test_the_state_file_is_put_right_and_nothing_recorded_is_deleted(folder, capsys):
    cut(data(folder), 1000)
    before = sorted(os.listdir(folder))
    clear_leftovers(str(folder))
    assert sorted(os.listdir(folder)) == before
    assert tf.train.latest_checkpoint(str(folder)) == str(folder / "ckpt-4")
    assert recorded_checkpoints(str(folder)) == [str(folder / "ckpt-4"), str(folder / "ckpt-2")]
    assert f"the newest whole checkpoint is {folder}/ckpt-4" in capsys.readouterr().out
    # TensorFlow's manager takes the older ones for its own, and deletes them in their turn.
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(value=tf.Variable(np.zeros(1000))), str(folder), 2)
    manager.save(5)
    assert not index(folder, 2).exists() and index(folder, 4).exists()


def test_a_checkpoint_that_was_written_but_not_recorded_is_left_alone(folder):
    data(folder, 8).write_bytes(data(folder).read_bytes())
    index(folder, 8).write_bytes(index(folder).read_bytes())
    before = sorted(os.listdir(folder))
    clear_leftovers(str(folder))
    assert sorted(os.listdir(folder)) == before
    assert fault_of(str(folder / "ckpt-8")) is None
    assert last_whole_checkpoint(str(folder)) == str(folder / "ckpt-6")
