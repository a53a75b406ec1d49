"""A training checkpoint of kMaX-R50 holds the keys DeepLab2's holds."""

import json
import pathlib

import orbit
import tensorflow as tf

from deeplab2_kmax.config import load_config
from deeplab2_kmax.model import build_model
from deeplab2_kmax.training.checkpoints.checkpointing import RunCheckpoints
from deeplab2_kmax.training.optimizers import SolverSettings, build_optimizers

_ROOT = pathlib.Path(__file__).parents[3]
_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def test_keys_equal_deeplab2s_after_two_steps(tmp_path):
    config = load_config(str(_ROOT / "configs/coco/kmax_r50.textproto"))
    model = build_model(config)
    settings = SolverSettings.from_options(config.trainer_options.solver_options)
    variables = model.trainable_variables
    optimizers = build_optimizers(settings, variables, model.pixel_encoder.trainable_variables)
    step = orbit.utils.create_global_step()
    # The optimizers have all their variables from the start; steps change values only.
    step.assign(2)
    checkpoints = RunCheckpoints(
        model, step, str(tmp_path), initialize=lambda: "", optimizers=optimizers.checkpoint_items
    )
    path = checkpoints.save(check_interval=False)
    assert path.endswith("ckpt-2")
    stored = {key[: -len(_SUFFIX)]: shape for key, shape in tf.train.list_variables(path) if key.endswith(_SUFFIX)}
    golden = json.loads((_ROOT / "tests/golden/train_kmax_r50_coco.keys.json").read_text())
    assert stored == golden
