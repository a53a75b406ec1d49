"""Whole runs of a very small kMaX on very little data."""

import json
import pathlib
import re
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.checkpoints import resolve_checkpoint
from deeplab2_kmax.checkpoints.keys import checkpoint_variables
from deeplab2_kmax.config import load_config
from deeplab2_kmax.errors import CheckpointError, ConfigError, DataError
from deeplab2_kmax.input_pipeline import BadRecords, build_dataset
from deeplab2_kmax.stop_signals import StopSignals
from deeplab2_kmax.training import run_experiment as run
from deeplab2_kmax.training.mode import Mode
from deeplab2_kmax.training.run.modes import evaluate
from deeplab2_kmax.training.run.run import Run
from helpers.survival_runs import CONFIG, small_runs, write_records


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return write_records(tmp_path_factory.mktemp("shapes"), train=4, val=3)


def tiny_config(records, *overrides):
    """kMaX with a single decoder layer at 33 x 33 pixels, and an optimizer of its own for the pixel encoder."""
    return load_config(
        str(CONFIG),
        [
            *small_runs(records),
            "trainer_options.steps_per_loop=2",
            "trainer_options.save_checkpoints_steps=2",
            "trainer_options.solver_options.training_number_of_steps=3",
            "trainer_options.solver_options.backbone_learning_rate_multiplier=0.1",
            "evaluator_options.num_vis_samples=1",
            *overrides,
        ],
    )


@pytest.fixture(scope="module")
def trained(records, tmp_path_factory):
    """The model folder of a finished run of three steps, and its results."""
    folder = tmp_path_factory.mktemp("runs")
    results = run(tiny_config(records), "train_and_eval", str(folder))
    return folder, results


def test_a_run_leaves_checkpoints_config_and_results(trained):
    folder, results = trained
    run_folder = folder / "shapes_kmax_tiny"
    assert tf.train.get_checkpoint_state(str(run_folder)).all_model_checkpoint_paths[-1].endswith("ckpt-3")
    metrics = json.loads((run_folder / "eval/metrics-3.json").read_text())
    assert metrics["images"] == 3
    assert metrics["panoptic_quality"]["all"]["pq"] == pytest.approx(results["evaluation/pq/PQ"])
    assert {"losses/eval_total_loss", "evaluation/iou/IoU", "evaluation/pq/SQ"} <= set(results)
    assert load_config(str(run_folder / "config.textproto")).experiment_name == "shapes_kmax_tiny"
    assert (run_folder / "vis/000000_panoptic_prediction.png").exists()


def test_summaries_have_deeplab2s_names(trained):
    folder, _ = trained
    tags = {"train": set(), "eval": set()}
    for kind, found in tags.items():
        for path in (folder / "shapes_kmax_tiny" / kind).glob("events*"):
            for event in tf.compat.v1.train.summary_iterator(str(path)):
                found.update(value.tag for value in event.summary.value)
    assert {"losses/train_total_loss", "losses/train_aux_0pq_style_loss_class_term", "learning_rate"} <= tags["train"]
    assert {"backbone_learning_rate", "gradient_norm", "steps_per_second", "images_per_second"} <= tags["train"]
    assert {"training/000", "training/001"} <= tags["train"]
    assert {"panoptic/000_shapes_val_000000", "panoptic/002_shapes_val_000002"} <= tags["eval"]
    assert {"losses/eval_total_loss", "evaluation/pq/PQ", "evaluation/iou/IoU"} <= tags["eval"]


def test_continuous_evaluation_leaves_out_what_has_a_result(trained, records, capsys):
    folder, results = trained
    run_folder = folder / "shapes_kmax_tiny"
    facts = json.loads((run_folder / "best/best.json").read_text())
    assert facts["step"] == 3
    assert facts["figures"]["evaluation/pq/PQ"] == pytest.approx(results["evaluation/pq/PQ"])
    assert resolve_checkpoint(str(run_folder / "best")).endswith("best/ckpt-3")
    again = run(tiny_config(records), "continuous_eval", str(folder))
    said = capsys.readouterr().out
    assert re.search(r"evaluating \S+/ckpt-2 at step 2\n", said)
    assert "ckpt-3 has its result already\nstep 3 is the last one\n" in said
    assert "\n1 checkpoint evaluated, results of 1 were there already\n" in said
    assert not [line for line in said.splitlines() if len(line) > 80 and str(folder) not in line]
    assert again["evaluation/pq/PQ"] == pytest.approx(results["evaluation/pq/PQ"])


def test_a_resumed_run_goes_on_with_the_same_state(trained, records, capsys):
    folder = trained[0] / "shapes_kmax_tiny"
    changes = ["trainer_options.solver_options.training_number_of_steps=4", "train_dataset_options.seed=5"]
    config = tiny_config(records, *changes)
    strategy = tf.distribute.OneDeviceStrategy("device:CPU:0")
    with strategy.scope():
        resumed = Run(config, Mode.TRAIN, str(folder), strategy)
    assert "resumed from" in capsys.readouterr().out
    assert int(resumed.global_step) == 3
    reader = tf.train.load_checkpoint(str(folder / "ckpt-3"))
    optimizers = resumed.controller.trainer._step.optimizers
    for name, optimizer, key in (
        ("optimizer", optimizers.main, "transformer_decoder/cluster_centers"),
        ("backbone_optimizer", optimizers.backbone, "encoder/_stem/_conv/kernel"),
    ):
        assert int(optimizer.iterations) == 3
        slot = optimizer.get_slot(checkpoint_variables(resumed.model)[key], "m").numpy()
        stored = reader.get_tensor(f"{key}/.OPTIMIZER_SLOT/{name}/m/.ATTRIBUTES/VARIABLE_VALUE")
        assert np.abs(stored).max() > 0
        np.testing.assert_array_equal(slot, stored)
    # The fourth batch of the seed's order comes next.
    batch = next(iter(resumed.controller.trainer.train_dataset))
    whole = [each["image"].numpy() for each in build_dataset(config.train_dataset_options, is_training=True).take(4)]
    np.testing.assert_array_equal(batch["image"], whole[3])
    assert (whole[3] != whole[0]).any()


def test_a_finished_run_is_not_trained_further(trained, records, capsys, monkeypatch):
    # On a machine with a GPU that nobody has asked for, which is said once.
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    run(tiny_config(records), "train", str(trained[0]))
    said = capsys.readouterr().out
    assert "training is complete at step 3" in said
    assert said.count("1 GPU is present and unused: --num_gpus=1 uses it\n") == 1


def test_there_must_be_averages_to_evaluate(records, tmp_path):
    with pytest.raises(ConfigError, match="use_averaged_weights: there are none.*weight_average_decay"):
        run(tiny_config(records, "evaluator_options.use_averaged_weights=true"), "train_and_eval", str(tmp_path))


def test_other_optimizers_cannot_take_over_the_state(trained, records):
    config = tiny_config(records, "trainer_options.solver_options.optimizer=sgd")
    with pytest.raises(CheckpointError, match="holds no 'momentum' of `optimizer`"):
        run(config, "train", str(trained[0]))


def test_another_architecture_cannot_resume(trained, records):
    config = tiny_config(records, "model_options.max_deeplab.num_mask_slots=8")
    with pytest.raises(CheckpointError, match="cluster_centers"):
        run(config, "train", str(trained[0]))


def test_evaluation_needs_a_checkpoint(records, tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint to evaluate.*--mode=train"):
        run(tiny_config(records), "eval", str(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_initial_checkpoint_has_to_exist(records, tmp_path):
    config = tiny_config(records, f"model_options.initial_checkpoint={tmp_path}/nothing/ckpt-1")
    with pytest.raises(CheckpointError, match="initial_checkpoint.*nothing/ckpt-1"):
        run(config, "train", str(tmp_path / "runs"))


# As DeepLab2's experiment files leave them.
PLACEHOLDERS = {
    "experiment_name": "${EXPERIMENT_NAME}",
    "model_options.initial_checkpoint": "${INIT_CHECKPOINT}",
    "model_options.backbone.pretrained_weights": "${PRETRAINED_WEIGHTS}",
    "train_dataset_options.file_pattern": "${TRAIN_SET}",
    "eval_dataset_options.file_pattern": "${VAL_SET}",
}


@pytest.mark.parametrize(
    "mode, unused",
    [
        ("train", ["eval_dataset_options.file_pattern"]),
        ("eval", ["train_dataset_options.file_pattern", "model_options.backbone.pretrained_weights"]),
        ("train_and_eval", []),
        (
            "continuous_eval",
            [
                "train_dataset_options.file_pattern",
                "model_options.backbone.pretrained_weights",
                "model_options.initial_checkpoint",
            ],
        ),
    ],
)
def test_all_placeholders_that_a_mode_needs_are_named_at_once(records, tmp_path, mode, unused):
    config = tiny_config(records, *(f"{field}={name}" for field, name in PLACEHOLDERS.items()))
    with pytest.raises(ConfigError) as error:
        run(config, mode, str(tmp_path / "runs"))
    needed, _, rest = str(error.value).partition("not needed for")
    for field, name in PLACEHOLDERS.items():
        assert (f"--override={field}=" in needed) == (name in needed) == (field not in unused)
        assert (field in rest) == (field in unused)
    assert "'--override=train_dataset_options.file_pattern=data/shapes/train-*.tfrecord'" in needed or "eval" in mode
    assert not (tmp_path / "runs").exists()


def test_a_trained_run_needs_no_initial_checkpoint(trained, records):
    config = tiny_config(records, "model_options.initial_checkpoint=${INIT_CHECKPOINT}")
    assert run(config, "eval", str(trained[0]))


def test_whatever_is_missing_is_told_at_once(records, tmp_path):
    overrides = [
        "experiment_name=${NAME}",
        "model_options.initial_checkpoint=nothing/ckpt-1",
        "train_dataset_options.file_pattern=nowhere/train-*",
        "eval_dataset_options.file_pattern=${VAL_SET}",
    ]
    with pytest.raises(ConfigError) as error:
        run(tiny_config(records, *overrides), "train_and_eval", str(tmp_path / "runs"))
    told = str(error.value)
    assert told.startswith("3 things stop this run:\n")
    assert "--override=experiment_name=" in told and "--override=eval_dataset_options.file_pattern=" in told
    assert "nothing/ckpt-1" in told
    assert "make the records with: python -m deeplab2_kmax.converters.shapes --output_dir=nowhere" in told


def test_missing_records_are_named_with_the_command_that_makes_them(tmp_path):
    config = tiny_config(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"(?s)train_dataset_options.*nowhere/train-\*.*converters.shapes"):
        run(config, "train", str(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_cannot_be_written_is_named(records, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="model_dir: cannot write to .*file"):
        run(tiny_config(records), "train", str(tmp_path / "file"))


def test_a_broken_record_stops_with_its_place(records, tmp_path):
    shard = next(pathlib.Path(records).glob("val-*"))
    good = next(iter(tf.data.TFRecordDataset(str(shard)))).numpy()
    broken = tf.train.Example.FromString(good)
    image = broken.features.feature["image/encoded"].bytes_list
    image.value[0] = image.value[0][:100]
    with tf.io.TFRecordWriter(str(tmp_path / "val-broken.tfrecord")) as writer:
        writer.write(good)
        writer.write(broken.SerializeToString())
    config = tiny_config(records, f"eval_dataset_options.file_pattern={tmp_path}/val-broken.tfrecord")

    def read_all(steps):
        """What orbit's controller does with the data."""
        for _ in build_dataset(config.eval_dataset_options, is_training=False):
            pass

    bad_records = {"eval": BadRecords(0)}
    with pytest.raises(DataError, match="val-broken.tfrecord, record 1"):
        evaluate(
            SimpleNamespace(
                config=config,
                controller=SimpleNamespace(evaluate=read_all),
                bad_records=bad_records,
                stop=StopSignals(),
            )
        )


def test_more_gpus_than_there_are(records, tmp_path):
    with pytest.raises(ConfigError, match="num_gpus: 64 asked for, but TensorFlow sees"):
        run(tiny_config(records), "train", str(tmp_path), num_gpus=64)
