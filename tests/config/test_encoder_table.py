"""The table of encoders: every row names fields that exist, and a layer that can be built from them."""

import pytest

from deeplab2_kmax.config.encoders import ENCODERS, explicit_backbone_fields
from deeplab2_kmax.config.explicit import explicit_fields
from deeplab2_kmax.model.layers.activations import ACTIVATIONS
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.pixel_encoders import build_pixel_encoder
from deeplab2_kmax.protos import config_pb2


@pytest.mark.parametrize("name", ENCODERS)
def test_every_row_fills_its_fields_and_builds(name):
    config = config_pb2.ExperimentOptions()
    config.model_options.backbone.name = name
    config.model_options.max_deeplab.SetInParent()
    assert any(note.text.startswith(f"{name} is") for note in explicit_fields(config))
    backbone = config.model_options.backbone
    for field, value in ENCODERS[name].fields.items():
        filled = getattr(backbone, field)
        assert (tuple(filled) if isinstance(value, tuple) else filled) == value, field
    decoder = config.model_options.max_deeplab.transformer_decoder
    for field, value in ENCODERS[name].decoder.items():
        assert getattr(decoder, field) == value, field
    if not ENCODERS[name].has_own_skeleton:
        assert build_pixel_encoder(config, Normalization()).activation in ACTIVATIONS


def test_fields_of_the_config_win_over_the_table():
    config = config_pb2.ExperimentOptions()
    config.model_options.backbone.name = "kmax_resnet50"
    config.model_options.backbone.stage_blocks[:] = [1, 1, 1, 1]
    explicit_fields(config)
    assert list(config.model_options.backbone.stage_blocks) == [1, 1, 1, 1]
    assert list(config.model_options.backbone.stage_filters) == [64, 128, 256, 512]


def test_multipliers_scale_widths_and_depths_on_maxs_skeleton_only():
    config = config_pb2.ExperimentOptions()
    backbone = config.model_options.backbone
    backbone.name = "max_deeplab_s"
    backbone.stem_width_multiplier, backbone.backbone_width_multiplier = 0.5, 0.25
    backbone.backbone_layer_multiplier = 0.5
    fields = explicit_backbone_fields(backbone)
    assert fields["stem_channels"] == 32
    assert fields["stage_filters"] == (16, 32, 64, 128)
    assert fields["stage_blocks"] == (1, 2, 3, 1)
    backbone.name = "kmax_resnet50"
    assert explicit_backbone_fields(backbone) == ENCODERS["kmax_resnet50"].fields
