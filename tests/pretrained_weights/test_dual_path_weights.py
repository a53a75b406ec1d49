"""A classifier's checkpoint fills the backbone of a network on MaX-DeepLab's skeleton, and nothing else."""

import numpy as np

from deeplab2_kmax.checkpoints.keys import checkpoint_variables
from deeplab2_kmax.model import build_model
from deeplab2_kmax.pretrained_weights import load_pretrained_weights


def test_backbone_alone_is_loaded(tiny_max_config, write_golden_checkpoint, golden_value, tmp_path):
    model = build_model(tiny_max_config())
    variables = checkpoint_variables(model)
    backbone = {id(variable) for variable in model.backbone_variables}
    stages = {key: v for key, v in variables.items() if key.startswith("encoder/_st") and "_extra" not in key}
    stored = {key: list(variable.shape) for key, variable in stages.items() if "_transformer" not in key}
    classifier = {"encoder/_logits/kernel": [32, 10]}
    before = {key: variable.numpy() for key, variable in variables.items()}
    checkpoint = write_golden_checkpoint({**stored, **classifier}, str(tmp_path / "ckpt"))
    report = load_pretrained_weights(model, checkpoint, "max_deeplab_s")
    assert set(report.loaded) == set(stored) and report.unused == tuple(classifier)
    assert {id(variables[key]) for key in stored if variables[key].trainable} == backbone
    for key, variable in variables.items():
        expected = golden_value(key, variable.shape) if key in stored else before[key]
        np.testing.assert_array_equal(variable.numpy(), expected, err_msg=key)
