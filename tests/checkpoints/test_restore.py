"""Checkpoints: DeepLab2's keys, strict restores, reports."""

import os
import uuid

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.checkpoints import load_checkpoint, save_checkpoint
from deeplab2_kmax.checkpoints.keys import checkpoint_variables
from deeplab2_kmax.config import load_config
from deeplab2_kmax.errors import CheckpointError
from deeplab2_kmax.model import build_model

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


@pytest.fixture(scope="module")
def tiny_model(tiny_config):
    return build_model(tiny_config)


def values(model):
    return {key: variable.numpy() for key, variable in checkpoint_variables(model).items()}


def stored_keys(prefix):
    keys = tf.train.load_checkpoint(prefix).get_variable_to_shape_map()
    return {key[: -len(VALUE)]: shape for key, shape in keys.items() if key.endswith(VALUE)}


def test_full_model_has_exactly_deeplab2s_keys_and_shapes(coco_r50, golden_keys):
    expected = golden_keys("kmax_r50_coco")
    assert {key: list(variable.shape) for key, variable in checkpoint_variables(coco_r50).items()} == expected
    assert len({id(variable) for variable in checkpoint_variables(coco_r50).values()}) == len(coco_r50.variables)


def test_saved_checkpoint_holds_deeplab2s_keys(coco_r50, golden_keys, tmp_path):
    expected = golden_keys("kmax_r50_coco")
    stored = stored_keys(save_checkpoint(coco_r50, str(tmp_path / "out" / "ckpt")))
    assert stored == expected


def test_round_trip(tiny_config, tiny_model, tmp_path):
    prefix = save_checkpoint(tiny_model, str(tmp_path / "ckpt"))
    other = build_model(tiny_config)
    report = load_checkpoint(other, prefix)
    assert report.complete
    restored = values(other)
    for key, value in values(tiny_model).items():
        np.testing.assert_array_equal(restored[key], value)


def test_training_state_in_the_checkpoint_is_not_unused(tiny_model, tmp_path):
    from deeplab2_kmax.checkpoints import checkpoint_items

    optimizer = tf.keras.optimizers.legacy.Adam()
    variable = tiny_model.trainable_variables[0]
    optimizer.apply_gradients([(tf.ones_like(variable), variable)])
    checkpoint = tf.train.Checkpoint(**checkpoint_items(tiny_model), optimizer=optimizer, global_step=tf.Variable(3))
    assert load_checkpoint(tiny_model, checkpoint.write(str(tmp_path / "ckpt"))).complete


def rewritten(model, prefix, drop=(), reshape=(), add=()):
    """A checkpoint of `model` that lacks, misshapes or adds some keys."""
    tree = {}
    wanted = {key: value for key, value in values(model).items() if key not in drop}
    wanted.update({key: np.zeros([3], np.float32) for key in (*reshape, *add)})
    for key, value in wanted.items():
        *parents, leaf = key.split("/")
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
        node[leaf] = tf.Variable(value)

    def checkpoint(node):
        return tf.train.Checkpoint(**{k: checkpoint(v) for k, v in node.items()}) if isinstance(node, dict) else node

    return checkpoint(tree).write(prefix)


def test_strict_restore_names_what_does_not_fit_and_assigns_nothing(tiny_model, tmp_path):
    prefix = rewritten(
        tiny_model,
        str(tmp_path / "ckpt"),
        drop=["semantic_last_layer/bias"],
        reshape=["encoder/_stem/_conv/kernel"],
        add=["encoder/_stage9/kernel"],
    )
    before = values(tiny_model)
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(tiny_model, prefix)
    message = str(error.value)
    assert prefix in message
    assert "1 missing: semantic_last_layer/bias" in message
    assert "1 misshaped: encoder/_stem/_conv/kernel: [3] -> [7, 7, 3, 8]" in message
    assert "1 unused: encoder/_stage9/kernel" in message
    assert "another architecture" not in message
    for key, value in values(tiny_model).items():
        np.testing.assert_array_equal(before[key], value)


def test_partial_restore_reports(tiny_config, tiny_model, tmp_path):
    prefix = rewritten(tiny_model, str(tmp_path / "ckpt"), drop=["semantic_last_layer/bias"])
    report = load_checkpoint(build_model(tiny_config), prefix, partial=True)
    assert report.missing == ("semantic_last_layer/bias",)
    assert len(report.loaded) == len(values(tiny_model)) - 1 and not report.complete


def test_excluded_items_stay(tiny_config, tiny_model, tmp_path):
    prefix = save_checkpoint(tiny_model, str(tmp_path / "ckpt"))
    other = build_model(tiny_config)
    before = values(other)["semantic_last_layer/kernel"]
    report = load_checkpoint(other, prefix, exclude=["semantic_last_layer"])
    assert report.excluded == ("semantic_last_layer/bias", "semantic_last_layer/kernel")
    np.testing.assert_array_equal(values(other)["semantic_last_layer/kernel"], before)


def test_a_checkpoint_with_nothing_in_common_is_refused_even_partially(tiny_model, tmp_path):
    prefix = tf.train.Checkpoint(x=tf.Variable(1.0)).write(str(tmp_path / "ckpt"))
    with pytest.raises(CheckpointError, match="nothing in the checkpoint fits"):
        load_checkpoint(tiny_model, prefix, partial=True)


def test_other_widths_are_refused_by_name(configs, tiny_overrides, tiny_model, tmp_path):
    prefix = save_checkpoint(tiny_model, str(tmp_path / "ckpt"))
    path = str(configs / "shapes" / "kmax_tiny.textproto")
    wider = build_model(load_config(path, [*tiny_overrides, "model_options.max_deeplab.num_mask_slots=12"]))
    with pytest.raises(CheckpointError, match=r"cluster_centers: \[1, 16, 16\] -> \[1, 12, 16\]"):
        load_checkpoint(wider, prefix)


def test_a_checkpoint_of_another_architecture_is_told_as_such_in_few_names(tiny_model, tmp_path):
    keys = sorted(checkpoint_variables(tiny_model))
    prefix = rewritten(tiny_model, str(tmp_path / "ckpt"), drop=keys[5:], add=[f"other/layer{n}" for n in range(9)])
    with pytest.raises(CheckpointError, match="it seems to be of another architecture, so name the config") as error:
        load_checkpoint(tiny_model, prefix)
    message = str(error.value)
    assert f"{keys[5]}, {keys[6]} and {len(keys) - 7} more" in message and "9 unused: " in message
    assert "Python" not in message and "layer2" not in message


@pytest.mark.parametrize("where", ["nothing_here", ""])
def test_no_checkpoint_there(tiny_model, tmp_path, where):
    path = str(tmp_path / where)
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(tiny_model, path)
    assert path in str(error.value)


def test_directory_stands_for_its_latest_checkpoint(tiny_model, tmp_path):
    from deeplab2_kmax.checkpoints import checkpoint_items

    manager = tf.train.CheckpointManager(tf.train.Checkpoint(**checkpoint_items(tiny_model)), str(tmp_path), 2)
    saved = manager.save()
    assert load_checkpoint(tiny_model, str(tmp_path)).path == saved
    saved = manager.save()
    assert load_checkpoint(tiny_model, str(tmp_path)).path == saved


def test_paths_may_be_of_pathlib(tiny_model, tmp_path):
    prefix = tmp_path / "folder" / "ckpt-3"
    save_checkpoint(tiny_model, prefix)
    for path in (prefix, prefix.parent):
        assert load_checkpoint(tiny_model, path).complete


def test_a_refused_restore_does_not_say_that_something_was_loaded(tiny_model, tmp_path):
    rewritten(tiny_model, str(tmp_path / "ckpt"), drop=[sorted(checkpoint_variables(tiny_model))[0]])
    with pytest.raises(CheckpointError, match="variables that fit, of which none was loaded") as error:
        load_checkpoint(tiny_model, str(tmp_path / "ckpt"))
    assert "variables loaded" not in str(error.value)


def test_unwritable_directory(tiny_model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file"):
        save_checkpoint(tiny_model, str(tmp_path / "file" / "ckpt"))


def test_weights_saved_to_a_remote_folder_make_no_local_one(tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prefix = save_checkpoint(tiny_model, f"ram://checkpoints/{uuid.uuid4().hex}/out/ckpt")
    assert not list(tmp_path.iterdir())
    assert load_checkpoint(tiny_model, prefix).complete


def _cut(share):
    return lambda path: os.truncate(path, int(path.stat().st_size * share))


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 1
    path.write_bytes(content)


DAMAGES = {
    **{f"data cut to {share}": ("data-00000-of-00001", _cut(share)) for share in (0, 0.05, 0.3, 0.99)},
    "data flipped": ("data-00000-of-00001", _flip),
    "data gone": ("data-00000-of-00001", os.remove),
    "index cut": ("index", _cut(0.5)),
    "index empty": ("index", _cut(0)),
    "index flipped": ("index", _flip),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("partial", [False, True])
def test_a_damaged_checkpoint_changes_no_variable_and_is_told_once(tiny_model, tmp_path, damage, partial, caplog):
    prefix = save_checkpoint(tiny_model, str(tmp_path / "ckpt"))
    which, apply = DAMAGES[damage]
    apply(tmp_path / f"ckpt.{which}")
    for variable in tiny_model.variables[:3]:
        variable.assign_add(tf.ones_like(variable))
    before = values(tiny_model)
    expected = "ckpt: (expected a whole checkpoint, got one whose files are cut|not a readable checkpoint: )"
    with pytest.raises(CheckpointError, match=expected) as told:
        load_checkpoint(tiny_model, prefix, partial=partial)
    assert "\n" not in str(told.value) and not caplog.records
    for key, value in values(tiny_model).items():
        np.testing.assert_array_equal(before[key], value)
