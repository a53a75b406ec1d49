"""From a model of one data set to one of another: what is loaded, what is not, and that it is told."""

import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.checkpoints import object_tree, save_checkpoint
from deeplab2_kmax.checkpoints.keys import checkpoint_variables
from deeplab2_kmax.config import load_config
from deeplab2_kmax.converters.shapes import convert_shapes
from deeplab2_kmax.errors import CheckpointError
from deeplab2_kmax.model import build_model
from deeplab2_kmax.training import run_experiment as run
from deeplab2_kmax.training.checkpoints.initial_weights import InitialCheckpoint, initial_weights

_CONFIG = str(pathlib.Path(__file__).parents[3] / "configs/shapes/kmax_tiny.textproto")
SEMANTIC = "semantic_last_layer"
# 133 classes and void in place of 8 and void, 128 mask slots in place of 16.
OTHER_SHAPES = ["cluster_centers", f"{SEMANTIC}/", "transformer_class_head/"]


@pytest.fixture(scope="module")
def make_config(tiny_overrides):
    """(*overrides) -> a very small experiment on shapes."""
    blocks = "model_options.max_deeplab.transformer_decoder.num_blocks=0,0,1"
    crops = [f"{part}_dataset_options.crop_size=33,33" for part in ("train", "eval")]
    return lambda *overrides: load_config(_CONFIG, [*tiny_overrides, *crops, blocks, *overrides])


@pytest.fixture(scope="module")
def coco(make_config, tmp_path_factory):
    """Variables and checkpoint of such a model for COCO's classes."""
    config = make_config(
        "train_dataset_options.dataset=coco_panoptic",
        "eval_dataset_options.dataset=coco_panoptic",
        "model_options.max_deeplab.auxiliary_semantic_head.output_channels=134",
        "model_options.max_deeplab.num_mask_slots=128",
    )
    model = build_model(config)
    return checkpoint_variables(model), save_checkpoint(model, str(tmp_path_factory.mktemp("coco") / "ckpt"))


def has_other_shape(key):
    return any(part in key for part in OTHER_SHAPES)


def one_step(folder):
    """Overrides for a run of one step; draws its two records."""
    convert_shapes(str(folder / "records"), num_train=2, num_val=1, size=33, num_processes=1)
    return [
        f"train_dataset_options.file_pattern={folder}/records/train-*",
        "train_dataset_options.batch_size=2",
        "trainer_options.solver_options.training_number_of_steps=1",
        "trainer_options.solver_options.warmup_steps=0",
        "trainer_options.steps_per_loop=1",
    ]


def start(config, folder):
    """(variables before, variables after, what was said) of a new run's start."""
    model = build_model(config)
    variables = checkpoint_variables(model)
    before = {key: variable.numpy() for key, variable in variables.items()}
    said = initial_weights(model, InitialCheckpoint.from_options(config.model_options), str(folder))
    return before, {key: variable.numpy() for key, variable in variables.items()}, said


def test_other_shapes_are_an_error_that_names_them_and_the_field(make_config, coco, tmp_path):
    config = make_config(f"model_options.initial_checkpoint={coco[1]}")
    message = (
        r"initial_checkpoint: \S+ has \d+ variables of another shape.*semantic_last_layer/bias: \[134\] -> \[9\].*"
        "model_options.skip_other_shapes_from_initial_checkpoint: true"
    )
    with pytest.raises(CheckpointError, match=message):
        start(config, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_rest_of_another_classes_model_is_loaded_trains_on_and_is_reported(make_config, coco, tmp_path, capsys):
    given, path = coco
    config = make_config(
        f"model_options.initial_checkpoint={path}",
        "model_options.skip_other_shapes_from_initial_checkpoint=true",
        *one_step(tmp_path),
    )
    before, after, said = start(config, tmp_path)
    for key, value in after.items():
        expected = before if has_other_shape(key) else given
        np.testing.assert_array_equal(value, expected[key], err_msg=key)
    skipped = sum(map(has_other_shape, after))
    assert f"{len(after) - skipped} variables loaded" in said and f"{skipped} misshaped: " in said

    run(config, "train", str(tmp_path))
    folder = tmp_path / "shapes_kmax_tiny"
    assert said.replace(str(tmp_path), str(folder)) in capsys.readouterr().out
    report = (folder / "restore_report.txt").read_text()
    assert re.search(rf"^{skipped} misshaped \(.*\)\n(    \S+: \[[\d, ]+\] -> \[[\d, ]+\]\n)+", report, re.M)
    assert f"    {SEMANTIC}/bias: [134] -> [9]\n" in report
    for key in after:
        assert re.search(rf"^    {re.escape(key)}(:|$)", report, re.M), key
    for key in (f"{SEMANTIC}/kernel", "encoder/_stem/_conv/kernel"):
        stored = tf.train.load_variable(str(folder / "ckpt-1"), f"{key}/.ATTRIBUTES/VARIABLE_VALUE")
        assert np.abs(stored - after[key]).max() > 0


@pytest.mark.parametrize("restored", [True, False])
def test_deeplab2s_flag_leaves_the_last_semantic_layer_out(make_config, tmp_path, restored):
    source = build_model(make_config())
    path = save_checkpoint(source, str(tmp_path / "ckpt"))
    flag = "model_options.restore_semantic_last_layer_from_initial_checkpoint"
    config = make_config(f"model_options.initial_checkpoint={path}", f"{flag}={str(restored).lower()}")
    before, after, said = start(config, tmp_path)
    given = checkpoint_variables(source)
    for key, value in after.items():
        excluded = key.startswith(f"{SEMANTIC}/") and not restored
        np.testing.assert_array_equal(value, (before if excluded else given)[key], err_msg=key)
    assert (f"2 excluded: {SEMANTIC}/bias, {SEMANTIC}/kernel" in said) == (not restored)
    assert (tmp_path / "restore_report.txt").exists() == (not restored)


def test_deeplab2s_other_flag_has_nothing_to_leave_out_and_says_so(make_config, tmp_path):
    source = build_model(make_config())
    path = save_checkpoint(source, str(tmp_path / "ckpt"))
    flag = "model_options.restore_instance_last_layer_from_initial_checkpoint"
    _, after, said = start(make_config(f"model_options.initial_checkpoint={path}", f"{flag}=false"), tmp_path)
    for key, variable in checkpoint_variables(source).items():
        np.testing.assert_array_equal(after[key], variable)
    told = " ".join(said.split())
    assert "restore_instance_last_layer_from_initial_checkpoint: false changes nothing, as in DeepLab2" in told


def test_a_run_may_start_from_averages(make_config, coco, tmp_path):
    doubled = {f"averaged_weights/{key}": tf.Variable(2 * variable) for key, variable in coco[0].items()}
    path = tf.train.Checkpoint(**object_tree({**coco[0], **doubled})).write(str(tmp_path / "ckpt"))
    config = make_config(
        f"model_options.initial_checkpoint={path}",
        "model_options.restore_averaged_weights_from_initial_checkpoint=true",
        "model_options.skip_other_shapes_from_initial_checkpoint=true",
    )
    _, after, _ = start(config, tmp_path)
    key = "encoder/_stem/_conv/kernel"
    np.testing.assert_array_equal(after[key], 2 * coco[0][key])


def test_copies_of_the_weights_start_from_the_loaded_ones(make_config, tmp_path):
    """With a learning rate of 0 a run ends where it started, however its slow weights and averages are updated."""
    solver = "trainer_options.solver_options"
    source = build_model(make_config())
    for variable in source.trainable_variables:
        variable.assign(variable + 1)  # So far from a random start that the way back would show.
    path = save_checkpoint(source, str(tmp_path / "ckpt"))
    config = make_config(
        f"model_options.initial_checkpoint={path}",
        f"{solver}.optimizer=radam",
        f"{solver}.base_learning_rate=0",
        f"{solver}.lookahead_sync_period=1",
        f"{solver}.weight_average_decay=0.9",
        *one_step(tmp_path),
    )
    run(config, "train", str(tmp_path))
    reader = tf.train.load_checkpoint(str(tmp_path / "shapes_kmax_tiny" / "ckpt-1"))
    trained = {id(variable) for variable in source.trainable_variables}
    for key, variable in checkpoint_variables(source).items():
        if id(variable) in trained:
            for stored in (key, f"averaged_weights/{key}"):
                value = reader.get_tensor(f"{stored}/.ATTRIBUTES/VARIABLE_VALUE")
                np.testing.assert_allclose(value, variable, rtol=1e-6, err_msg=stored)
