"""A full disk and a shard that vanishes: one message each, and then the same command goes on."""

import contextlib
import errno
import os
import pathlib
import resource
import shutil

import pytest
import tensorflow as tf

from deeplab2_kmax.checkpoints.integrity import fault_of, last_whole_checkpoint
from deeplab2_kmax.config import load_config
from deeplab2_kmax.errors import CheckpointError, DataError, StorageError
from deeplab2_kmax.storage_errors import storage_errors
from deeplab2_kmax.training import run_experiment as run
from deeplab2_kmax.training.checkpoints.checkpointing import RunCheckpoints
from helpers.survival_runs import CONFIG, NAME, overrides, write_records

# Longer than the input reads ahead.
STEPS, INTERVAL = 80, 10


@contextlib.contextmanager
def no_file_longer_than(limit):
    """What a full disk does to the file that hits it: write(2) fails (Python ignores the signal that goes with it)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_run_goes_on_after_a_full_disk_and_after_a_vanished_shard(tmp_path, tiny_overrides, monkeypatch):
    records, folder = write_records(tmp_path), tmp_path / "runs" / NAME
    config = load_config(str(CONFIG), overrides(records, tiny_overrides, STEPS, INTERVAL))
    shard, away = next(records.glob("train-*")), tmp_path / "away"
    write = RunCheckpoints._write

    def on_a_full_disk(self, step, options):
        with no_file_longer_than(300_000) if step == 2 * INTERVAL else contextlib.nullcontext():
            return write(self, step, options)

    def without_the_shard(self, step, options):
        if shard.exists():
            shutil.move(shard, away)
        return write(self, step, options)

    monkeypatch.setattr(RunCheckpoints, "_write", on_a_full_disk)
    message = rf"^cannot write a checkpoint to {folder}: .*File too large.*ckpt-{INTERVAL}, is whole"
    with pytest.raises(CheckpointError, match=message):
        run(config, "train", str(tmp_path / "runs"))
    assert [path.name for path in folder.glob(f"ckpt-{2 * INTERVAL}*")] == []
    assert tf.train.latest_checkpoint(str(folder)) == str(folder / f"ckpt-{INTERVAL}")

    monkeypatch.setattr(RunCheckpoints, "_write", without_the_shard)
    with pytest.raises(DataError, match=f"disappeared while it was being read: {shard}"):
        run(config, "train", str(tmp_path / "runs"))
    stopped_at = pathlib.Path(tf.train.latest_checkpoint(str(folder)))
    # What was learnt up to there has been saved.
    assert int(stopped_at.name.split("-")[1]) > 2 * INTERVAL and fault_of(str(stopped_at)) is None

    monkeypatch.setattr(RunCheckpoints, "_write", write)
    shutil.move(away, shard)
    run(config, "train", str(tmp_path / "runs"))
    assert fault_of(str(folder / f"ckpt-{STEPS}")) is None


def test_a_folder_that_is_deleted_under_a_run_ends_it_with_the_weights_saved(tmp_path, tiny_overrides, monkeypatch):
    records, folder = write_records(tmp_path), tmp_path / "runs" / NAME
    config = load_config(str(CONFIG), overrides(records, tiny_overrides, 4, 2))
    save = RunCheckpoints.save

    def save_after_the_folder_is_gone(self, *arguments, **options):
        shutil.rmtree(folder, ignore_errors=True)
        return save(self, *arguments, **options)

    monkeypatch.setattr(RunCheckpoints, "save", save_after_the_folder_is_gone)
    with pytest.raises(CheckpointError, match=f"^{folder} was deleted while the run used it.*saved there as ckpt-"):
        run(config, "train", str(tmp_path / "runs"))
    assert last_whole_checkpoint(str(folder))


def test_what_fails_because_the_folder_is_gone_says_so(tmp_path):
    folder = tmp_path / "gone"
    with pytest.raises(StorageError, match=f"^{folder} was deleted while the run used it"), storage_errors(str(folder)):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder / "eval"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
def test_what_the_system_says_about_the_disk_is_the_message(tmp_path, code):
    expected = rf"^cannot go on writing to {tmp_path}: .*{os.strerror(code)}.*same command goes on"
    with pytest.raises(StorageError, match=expected), storage_errors(str(tmp_path)):
        raise OSError(code, os.strerror(code), str(tmp_path / "eval" / "metrics-4.json"))
    with pytest.raises(StorageError, match=expected), storage_errors(str(tmp_path)):
        raise tf.errors.ResourceExhaustedError(None, None, f"events.out; {os.strerror(code)}\nmore")


def test_other_errors_pass_unchanged(tmp_path):
    with pytest.raises(FileNotFoundError), storage_errors(str(tmp_path)):
        raise FileNotFoundError(errno.ENOENT, "gone")
    with pytest.raises(tf.errors.InvalidArgumentError), storage_errors(str(tmp_path)):
        raise tf.errors.InvalidArgumentError(None, None, "shape")
