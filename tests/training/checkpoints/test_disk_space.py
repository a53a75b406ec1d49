"""A disk with too little room for the checkpoints to come is mentioned before it is full."""

import shutil
import uuid
from types import SimpleNamespace

import pytest
import tensorflow as tf

from deeplab2_kmax.checkpoints.files import size_of
from deeplab2_kmax.model import build_model
from deeplab2_kmax.training.checkpoints.checkpointing import RunCheckpoints
from deeplab2_kmax.training.optimizers import Schedule, SolverSettings, build_optimizers, build_weight_averages
from deeplab2_kmax.wording import in_bytes


@pytest.fixture(scope="module")
def model(tiny_config):
    return build_model(tiny_config)


def checkpoints_of(model, folder, keep=2):
    """Checkpoints with the state of an optimizer and averages, and the variable that counts their steps."""
    averages = build_weight_averages(model, 0.99)
    solver = SolverSettings("adamw", Schedule(0.1, total_steps=10), weight_decay=0.1)
    optimizers = build_optimizers(solver, model.trainable_variables, averages=averages)
    step = tf.Variable(1, dtype=tf.int64)
    checkpoints = RunCheckpoints(
        model,
        step,
        str(folder),
        keep=keep,
        interval=1,
        initialize=lambda: "",
        optimizers=optimizers.checkpoint_items,
        averages=averages,
    )
    return checkpoints, step


@pytest.fixture
def free(monkeypatch):
    """Sets how many bytes are free on all disks."""

    def is_free(number):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=int(number)))

    return is_free


def warnings(capsys):
    """The warnings said since the last call, each in one line."""
    text = " ".join(capsys.readouterr().out.split())
    return [f"warning:{line}" for line in text.split("warning:")[1:]]


def test_the_first_checkpoints_size_is_known_before_it_is_written(model, tmp_path, free, capsys):
    checkpoints, _ = checkpoints_of(model, tmp_path)
    size = checkpoints._size_of_variables()
    free(3 * size)
    checkpoints.warn_of_full_disk()
    assert warnings(capsys) == []
    free(3 * size - 1)
    checkpoints.warn_of_full_disk()
    checkpoints.warn_of_full_disk()
    (line,) = warnings(capsys)
    need = f"need {in_bytes(3 * size)} (3 checkpoints of {in_bytes(size)})"
    assert line.startswith(
        f"warning: {tmp_path}: {in_bytes(3 * size - 1)} are free, and the checkpoints to come {need};"
    )
    checkpoints.save()
    # Keys, shapes and checksums are most of what so small a model has beside its values.
    real = size_of(checkpoints.latest_checkpoint)
    entries = len(tf.train.list_variables(checkpoints.latest_checkpoint))
    assert size < real < size + 500 * entries


def test_what_is_on_the_disk_already_needs_no_more_room(model, tmp_path, free, capsys):
    free(10**15)
    checkpoints, step = checkpoints_of(model, tmp_path)
    for step_now in (1, 2):
        step.assign(step_now)
        checkpoints.save()
    size = size_of(checkpoints.latest_checkpoint)
    free(size + 10)
    step.assign(3)
    checkpoints.save()  # Room for one more, and then the oldest is deleted.
    assert warnings(capsys) == []
    free(size - 10)
    step.assign(4)
    checkpoints.save()
    step.assign(5)
    checkpoints.save()
    (line,) = warnings(capsys)
    assert f"come need {in_bytes(size)} (1 checkpoint of {in_bytes(size)})" in line


def test_remote_storage_is_not_asked(model, free, capsys):
    free(0)
    checkpoints, _ = checkpoints_of(model, f"ram://disk/{uuid.uuid4().hex}")
    checkpoints.warn_of_full_disk()
    checkpoints.save()
    assert warnings(capsys) == []


@pytest.mark.parametrize(
    "number, text", [(0, "0 bytes"), (999, "999 bytes"), (999_600, "1 MB"), (870_962_000, "871 MB"), (4.4e12, "4.4 TB")]
)
def test_bytes_are_told_in_a_unit_that_fits(number, text):
    assert in_bytes(number) == text
