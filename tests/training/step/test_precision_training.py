"""Training in mixed precision: the losses of float32, and float16 from the first step to the exported model."""

import collections
import glob

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.loss_curves import block_means, loss_curve
from deeplab2_kmax.config import load_config
from deeplab2_kmax.serving import export
from deeplab2_kmax.training import run_experiment as run
from helpers.survival_runs import small_runs, write_records


@pytest.fixture(scope="module")
def overrides(tmp_path_factory, tiny_overrides):
    return [
        *tiny_overrides,
        *small_runs(write_records(tmp_path_factory.mktemp("shapes"), train=8)),
        "trainer_options.solver_options.training_number_of_steps=2",
        "trainer_options.steps_per_loop=1",
    ]


@pytest.fixture(scope="module")
def path(configs):
    return str(configs / "shapes" / "kmax_tiny.textproto")


def test_bfloat16_has_the_losses_of_float32(path, overrides):
    """A few steps; benchmarks/loss_curves.py compares a hundred."""
    curves = []
    for precision in ("float32", "mixed_bfloat16"):
        losses, _ = loss_curve(path, [*overrides, f"model_options.precision={precision}"], steps=6)
        curves.append(block_means(losses, 3))
    precise, mixed = np.array(curves)
    assert not np.array_equal(mixed, precise)
    np.testing.assert_allclose(mixed, precise, rtol=0.02)


def test_float16_trains_evaluates_and_exports(path, overrides, tmp_path):
    config = load_config(path, [*overrides, "model_options.precision=mixed_float16"])
    results = run(config, "train_and_eval", str(tmp_path))
    assert np.isfinite(results["losses/eval_total_loss"])
    (index,) = glob.glob(f"{tmp_path}/*/ckpt-2.index")
    prefix = index[: -len(".index")]
    assert {dtype for dtype in tf.train.load_checkpoint(prefix).get_variable_to_dtype_map().values()} <= {
        tf.float32,
        tf.int64,
        tf.string,
    }
    loaded = tf.saved_model.load(export(config, prefix, tmp_path / "export"))
    assert loaded(tf.zeros([1, 33, 33, 3], tf.uint8))["panoptic_pred"].shape == [1, 33, 33]
    # Kernels, which are constants there.
    functions = loaded.signatures["serving_default"].graph.as_graph_def().library.function
    constants = [node.attr["value"].tensor for each in functions for node in each.node_def if node.op == "Const"]
    kernels = [tensor for tensor in constants if len(tensor.tensor_shape.dim) == 4]
    kinds = collections.Counter(tf.as_dtype(kernel.dtype) for kernel in kernels)
    # A few that no layer casts stay as they are.
    assert kinds[tf.float16] > 5 * kinds[tf.float32]
