"""A small model with random weights, exported once by the command line, and the same model in Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import deeplab2_kmax  # noqa: F401  (before TensorFlow: it chooses the Keras version)
from deeplab2_kmax.checkpoints import save_checkpoint
from deeplab2_kmax.checkpoints.keys import checkpoint_variables
from deeplab2_kmax.config import load_config
from deeplab2_kmax.model import build_model
from deeplab2_kmax.serving import Predictor

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "shapes" / "kmax_tiny.textproto"
# With random weights no confidence is high: with the usual thresholds every pixel would be void.
OVERRIDES = (
    "train_dataset_options.crop_size=65,65",
    "eval_dataset_options.crop_size=65,65",
    # Fewer blocks than the demo has: with random weights, each makes rounding errors larger.
    "model_options.backbone.stage_blocks=1,1,1,1",
    "model_options.max_deeplab.high_resolution_output_stride=4",
    "model_options.max_deeplab.pixel_decoder.filters=64,32,32,16",
    "model_options.max_deeplab.pixel_decoder.num_blocks=1,1,1,1",
    "model_options.max_deeplab.pixel_decoder.block_type=axial,axial,bottleneck,bottleneck",
    "trainer_options.solver_options.batchnorm_momentum=0",
    "evaluator_options.pixel_confidence_threshold=0.2",
    "evaluator_options.thing_area_limit=0",
    "evaluator_options.stuff_area_limit=0",
    "evaluator_options.maskwise_postprocessing.transformer_class_confidence_threshold_thing=0",
    "evaluator_options.maskwise_postprocessing.transformer_class_confidence_threshold_stuff=0",
    "evaluator_options.maskwise_postprocessing.overlapping_threshold=0",
)


@pytest.fixture(scope="session")
def config():
    return load_config(str(CONFIG), OVERRIDES)


@pytest.fixture(scope="session")
def model(config, golden_value):
    """The network as it is trained, with weights that give segments of several classes, not only void."""
    network = build_model(config)
    louder = {"transformer_class_head/_conv/kernel": 10.0, "pixel_space_mask_batch_norm/gamma": 2.0}
    for key, variable in checkpoint_variables(network).items():
        variable.assign(louder.get(key, 1.0) * golden_value(key, variable.shape))
    # With a momentum of zero, one step in training mode sets the statistics of all batch norms.
    noise = np.random.RandomState(5).randint(0, 256, (3, 4, 5, 3)).astype(np.float32)
    network(tf.image.resize(noise, (65, 65)), training=True)
    return network


@pytest.fixture(scope="session")
def checkpoint(model, tmp_path_factory) -> str:
    return save_checkpoint(model, str(tmp_path_factory.mktemp("run") / "ckpt-7"))


@pytest.fixture(scope="session")
def exported(checkpoint, tmp_path_factory) -> str:
    """The checkpoint as a SavedModel, written by trainer/export_model.py with DeepLab2's flags."""
    output = tmp_path_factory.mktemp("exported") / "model"
    command = [sys.executable, str(ROOT / "trainer" / "export_model.py"), f"--experiment_option_path={CONFIG}"]
    command += [f"--checkpoint_path={checkpoint}", f"--output_path={output}", "--merge_with_tf_op"]
    command += [f"--override={override}" for override in OVERRIDES]
    # From another folder and without PYTHONPATH, as a user would.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=output.parent, env=environment)
    assert done.returncode == 0, done.stderr
    assert "merge_with_tf_op is ignored" in done.stderr
    return str(output)


@pytest.fixture(scope="session")
def predictor(exported) -> Predictor:
    return Predictor.from_saved_model(exported)


@pytest.fixture(scope="session")
def picture() -> np.ndarray:
    """[52, 83, 3] uint8: two gradients and a bright disc."""
    rows, columns = np.mgrid[:52, :83]
    disc = 200 * ((rows - 20) ** 2 + (columns - 50) ** 2 < 150)
    return np.stack([4 * rows, 3 * columns, np.maximum(disc, 30 + columns)], -1).astype(np.uint8)
