"""Axial-ResNet as kMaX pixel encoder: DeepLab2's figures, and how the table's rows differ."""

import numpy as np
import pytest

from deeplab2_kmax.config import load_config
from deeplab2_kmax.config.encoders import ENCODERS
from deeplab2_kmax.model import build_model
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.layers.residual_blocks import AxialBlock, BasicBlock, BottleneckBlock
from deeplab2_kmax.model.pixel_encoders.residual_stages import ResidualSettings, Stage, build_stage

NORMALIZATION = Normalization()


def test_equals_deeplab2(configs, small_crop, assert_equals_deeplab2):
    overrides = [*small_crop, "model_options.backbone.name=kmax_axial_resnet50"]
    config = load_config(str(configs / "coco" / "kmax_r50.textproto"), overrides)
    assert_equals_deeplab2(build_model(config), "kmax_axial_r50_coco")


def test_deeper_network_has_eighteen_more_blocks_at_stride_16():
    shallow, deep = (ENCODERS[f"kmax_axial_resnet{depth}"].fields["stage_blocks"] for depth in (50, 104))
    assert [b - a for a, b in zip(shallow, deep)] == [0, 0, 18, 0]
    block = AxialBlock(256, NORMALIZATION)
    block(np.zeros([1, 1, 1, 1024], np.float32))
    parameters = 18 * sum(int(np.prod(weight.shape)) for weight in block.trainable_weights)
    assert parameters / 1e6 == pytest.approx(40.3, abs=0.05)


def kinds(stage, **settings):
    return [
        (type(block), block.stride, round(block.keep_prob, 4))
        for block in build_stage(stage, ResidualSettings(keep_prob=0.8, **settings), NORMALIZATION, "stage")
    ]


def test_attention_and_drop_path_begin_at_stride_16():
    assert kinds(Stage(8, 2, 4)) == [(BottleneckBlock, 2, 1.0), (BottleneckBlock, 1, 1.0)]
    assert kinds(Stage(8, 2, 8)) == [(BottleneckBlock, 2, 1.0), (AxialBlock, 1, 0.85)]
    assert kinds(Stage(8, 2, 16)) == [(AxialBlock, 2, 0.85), (AxialBlock, 1, 0.8)]
    assert kinds(Stage(8, 1, 16), keep_schedule="constant") == [(AxialBlock, 2, 0.8)]
    assert kinds(Stage(8, 2, 4), drop_beyond_stride=4) == [(BottleneckBlock, 2, 0.95), (BottleneckBlock, 1, 0.9)]


def test_a_smaller_output_stride_dilates_instead_of_striding():
    settings = ResidualSettings(output_stride=16, axial_beyond_stride=0, convolution="basic")
    first, second = build_stage(Stage(8, 2, 16), settings, NORMALIZATION, "stage")
    assert isinstance(first, BasicBlock) and first.stride == 1
    assert (first.conv1.dilation, first.conv_out.dilation) == (1, 2)
    assert (second.conv1.dilation, second.conv_out.dilation) == (2, 2)
