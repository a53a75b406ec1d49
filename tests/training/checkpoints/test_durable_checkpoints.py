"""A power cut costs at most the checkpoint that is being written: what is named is on the disk before."""

import os
from types import SimpleNamespace

import pytest
import tensorflow as tf

from deeplab2_kmax import files
from deeplab2_kmax.checkpoints import save_checkpoint
from deeplab2_kmax.checkpoints.integrity import recorded_checkpoints
from deeplab2_kmax.model import build_model
from deeplab2_kmax.serving.whole_folder import whole_folder
from deeplab2_kmax.training.checkpoints.best_checkpoint import BestCheckpoint
from deeplab2_kmax.training.checkpoints.checkpointing import RunCheckpoints


@pytest.fixture(scope="module")
def model(tiny_config):
    return build_model(tiny_config)


@pytest.fixture
def disk(monkeypatch):
    """What reaches the disk, in order: ("sync", path) and ("rename", path); `in_place` are the names at that time."""
    events = []
    fsync, replace = os.fsync, os.replace

    def record(kind, path):
        folder = path if os.path.isdir(path) else os.path.dirname(path)
        events.append(SimpleNamespace(kind=kind, path=path, in_place=set(os.listdir(folder))))

    def recorded_fsync(descriptor):
        record("sync", os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def recorded_replace(source, target):
        replace(source, target)
        record("rename", os.fspath(target))

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    return events


def place(events, kind, path):
    """The place among the events of the first of this kind about a path."""
    return [(event.kind, event.path) for event in events].index((kind, str(path)))


def test_a_checkpoint_is_on_the_disk_before_it_is_named_and_before_the_one_before_it_is_deleted(
    model, tmp_path, disk, capsys
):
    step = tf.Variable(1, dtype=tf.int64)
    checkpoints = RunCheckpoints(model, step, str(tmp_path), keep=1, interval=1, initialize=lambda: "")
    checkpoints.save()
    disk.clear()
    step.assign(2)
    checkpoints.save()
    *of_checkpoint, folder = (
        place(disk, "sync", path)
        for path in (tmp_path / "ckpt-2.data-00000-of-00001", tmp_path / "ckpt-2.index", tmp_path)
    )
    named = place(disk, "rename", tmp_path / "checkpoint")
    state = next(n for n, event in enumerate(disk) if ".checkpoint." in event.path)
    assert max(of_checkpoint) < folder < state < named
    # The new name is on the disk, too, while the old checkpoint is still there.
    of_name = named + 1 + place(disk[named + 1 :], "sync", tmp_path)
    assert {"ckpt-1.index", "ckpt-1.data-00000-of-00001"} <= disk[of_name].in_place
    assert "ckpt-1.index" not in os.listdir(tmp_path)
    assert recorded_checkpoints(str(tmp_path)) == [str(tmp_path / "ckpt-2")]
    assert "checkpoint saved" in capsys.readouterr().out


def test_the_best_checkpoint_is_on_the_disk_before_it_is_named(model, tmp_path, disk):
    path = save_checkpoint(model, str(tmp_path / "ckpt-7"))
    written = [event.path for event in disk if event.kind == "sync"]
    assert {f"{path}.index", f"{path}.data-00000-of-00001"} <= set(written)
    disk.clear()
    best = BestCheckpoint(str(tmp_path), "evaluation/pq/PQ")
    assert best.offer(path, 7, {"evaluation/pq/PQ": 0.5})
    named = place(disk, "rename", f"{best.folder}/best.json")
    assert place(disk, "rename", f"{best.path}.index") < place(disk, "sync", best.folder) < named
    assert disk[named - 1].kind == "sync" and ".best.json." in disk[named - 1].path


def test_an_export_is_on_the_disk_before_it_gets_its_name(tmp_path, disk):
    target = str(tmp_path / "export")
    with whole_folder(target) as folder:
        files.make_folder(files.join(folder, "variables"))
        for name in ("saved_model.pb", "variables/variables.index"):
            with open(files.join(folder, name), "w") as file:  # As TensorFlow does, without waiting for the disk.
                file.write("content")
    named = place(disk, "rename", target)
    synced = {os.path.relpath(event.path, folder) for event in disk[:named] if event.kind == "sync"}
    assert {".", "variables", "saved_model.pb", "variables/variables.index"} <= synced
    assert sorted(files.list_folder(target)) == ["saved_model.pb", "variables"]
