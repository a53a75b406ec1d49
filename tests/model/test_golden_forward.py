"""The forward pass equals DeepLab2's."""

import numpy as np

from deeplab2_kmax.model import build_model
from helpers.golden_outputs import OUTPUTS, assert_outputs_equal, images_of


def test_coco_r50(coco_r50, golden):
    case = np.load(golden / "kmax_r50_coco.npz")
    outputs = coco_r50(images_of(case), training=False)
    assert_outputs_equal(outputs, case)
    assert "auxiliary_outputs_pred" not in outputs


def test_cityscapes_r50_with_stride_2_masks(golden_config, assert_equals_deeplab2):
    assert_equals_deeplab2(build_model(golden_config("cityscapes")), "kmax_r50_cityscapes")


def test_batch_members_do_not_influence_each_other_in_inference(coco_r50, golden):
    case = np.load(golden / "kmax_r50_coco.npz")
    outputs = coco_r50(np.concatenate([images_of(case)] * 2), training=False)
    assert_outputs_equal({name: outputs[name][1:] for name in OUTPUTS}, case)
