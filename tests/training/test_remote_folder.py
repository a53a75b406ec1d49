"""Runs whose folder is on remote storage: `ram://`, TensorFlow's file system in memory."""

import io
import json
import uuid
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax import files
from deeplab2_kmax.config import load_config
from deeplab2_kmax.errors import CheckpointError, ConfigError
from deeplab2_kmax.training import run_experiment as run
from deeplab2_kmax.training.checkpoints.best_checkpoint import BestCheckpoint
from deeplab2_kmax.training.checkpoints.initial_weights import require_start
from deeplab2_kmax.training.evaluating.continuous_evaluation import evaluate_continuously
from deeplab2_kmax.training.evaluating.evaluation_results import EvaluationResults
from deeplab2_kmax.training.run import run_checks
from deeplab2_kmax.training.step import debug_bundle
from deeplab2_kmax.training.step.non_finite import NonFinite
from helpers.survival_runs import CONFIG, NAME, overrides, write_records

PQ = "evaluation/pq/PQ"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """The working folder, which stays empty: a remote path taken for a local one makes a folder `ram:` in it."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    assert not list(folder.rglob("*"))


@pytest.fixture
def remote():
    """A remote folder that nothing else uses."""
    return f"ram://remote/{uuid.uuid4().hex}"


def write(folder, step, value=1.0):
    """The prefix of a checkpoint, written as a run writes it."""
    state = tf.train.Checkpoint(weight=tf.Variable(value), global_step=tf.Variable(step, dtype=tf.int64))
    return tf.train.CheckpointManager(state, folder, max_to_keep=5).save(checkpoint_number=step)


def test_a_restart_does_not_replace_the_best_checkpoint_by_a_worse_one(remote):
    assert BestCheckpoint(remote, PQ).offer(write(remote, 3), 3, {PQ: 0.5})
    assert json.loads(files.read_text(f"{remote}/best/best.json"))["step"] == 3
    restarted = BestCheckpoint(remote, PQ)
    assert (restarted.step, restarted.value) == (3, 0.5)
    assert not restarted.offer(write(remote, 6, 2.0), 6, {PQ: 0.25})
    assert restarted.offer(write(remote, 9, 3.0), 9, {PQ: 0.75})
    assert BestCheckpoint(remote, PQ).path == f"{remote}/best/ckpt-9"
    assert not files.exists(f"{remote}/best/ckpt-3.index")


def test_continuous_evaluation_finds_checkpoints_and_keeps_results(remote, capsys):
    write(remote, 3)
    for _ in range(2):
        figures = evaluate_continuously(
            remote, lambda path: {PQ: 0.5}, EvaluationResults(remote, PQ, [PQ]), last_step=3, timeout=0.0
        )
        assert figures == {PQ: 0.5}
    assert f"waiting for checkpoints in {remote}\n" in capsys.readouterr().out
    assert [json.loads(line)["step"] for line in files.read_text(f"{remote}/eval/results.jsonl").splitlines()] == [3]


def test_a_debug_bundle_is_written(remote, tiny_config, monkeypatch):
    monkeypatch.setattr(debug_bundle, "save_checkpoint", lambda model, prefix: None)
    found = NonFinite(7, {"total_loss": float("nan")}, ["kernel:0"], 1, {"image": np.zeros([1, 2, 2, 3], np.float32)})
    bundles = debug_bundle.DebugBundles(remote, tiny_config, SimpleNamespace(variables=[]))
    for folder in (f"{remote}/debug/step-7", f"{remote}/debug/step-7-2"):
        assert bundles.save(found) == f"The batch and how to replay it are in {folder}"
        assert files.list_folder(folder) == ["README.txt", "batch.npz", "config.textproto", "report.json"]
    with np.load(io.BytesIO(files.read_bytes(f"{remote}/debug/step-7/batch.npz"))) as batch:
        assert batch["image"].shape == (1, 2, 2, 3)


def test_messages_name_the_folder_as_it_is(remote):
    with pytest.raises(CheckpointError, match=f"no checkpoint to evaluate: {remote} holds none"):
        require_start(remote, "", training=False)


def test_a_folder_that_cannot_be_written_to_is_refused(remote):
    run_checks._require_writable(remote)
    with pytest.raises(ConfigError, match="^model_dir: cannot write to nosuch://bucket: .*not implemented"):
        run_checks._require_writable("nosuch://bucket")


def test_a_run_leaves_everything_in_its_folder_and_goes_on_from_there(tmp_path, tiny_overrides, remote, capsys):
    fields = overrides(write_records(tmp_path), tiny_overrides, steps=2, interval=1)
    config = load_config(str(CONFIG), [*fields, "evaluator_options.eval_interval=2"])
    figures = run(config, "train_and_eval", remote)
    folder = f"{remote}/{NAME}"
    assert json.loads(files.read_text(f"{folder}/eval/metrics-2.json"))["step"] == 2
    assert json.loads(files.read_text(f"{folder}/best/best.json"))["step"] == 2
    assert load_config(f"{folder}/config.textproto").experiment_name == NAME
    capsys.readouterr()
    assert run(config, "train_and_eval", remote).keys() == figures.keys()
    said = capsys.readouterr().out
    assert f"resumed from {folder}/ckpt-2 at step 2" in said
    assert f"experiment {NAME!r}: 1 replica on CPU:0\nfolder: {folder}\n" in said
