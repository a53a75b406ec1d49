"""From an experiment config to loss settings."""

import pytest
from google.protobuf import text_format

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.losses import TermSettings, build_loss
from deeplab2_kmax.losses.settings import ONE, VOID_OVERLAP, LossSettings
from deeplab2_kmax.protos import config_pb2

TEXT = """
model_options { max_deeplab {
  instance_discrimination_sample_k: 4096 instance_discrimination_sample_temperature: 1.5
  semantic_sample_k: 4096 semantic_sample_temperature: 2.0
  transformer_decoder { num_blocks: 2 num_blocks: 2 num_blocks: 2 } } }
trainer_options { loss_options {
  semantic_loss { name: "softmax_cross_entropy" weight: 1.0 top_k_percent: 0.2 }
  pq_style_loss { weight: 3.0 } mask_id_cross_entropy_loss { weight: 0.3 }
  instance_discrimination_loss { weight: 1.0 } } }
train_dataset_options { dataset: "coco_panoptic" }
"""


def parse(extra=""):
    config = text_format.Parse(TEXT, config_pb2.ExperimentOptions())
    config.MergeFrom(text_format.Parse(extra, config_pb2.ExperimentOptions()))
    return config


def test_settings_of_a_deeplab2_config():
    settings = LossSettings.from_options(parse())
    assert (len(settings.thing_class_ids), len(settings.stuff_class_ids), settings.num_classes) == (80, 53, 134)
    assert settings.semantic == TermSettings(1.0, pytest.approx(0.2)) and settings.pq_style.weight == 3.0
    assert (settings.instance_sample_k, settings.instance_sample_temperature) == (4096, 1.5)
    assert settings.unmatched_slot_weight == VOID_OVERLAP and settings.auxiliary_outputs == 6
    # DeepLab2 reads semantic_sample_k and does not use it.
    assert settings.semantic_sample_k == 0


def test_our_own_options():
    model = "model_options { max_deeplab { sample_semantic_loss: true } }"
    settings = LossSettings.from_options(
        parse(model + "trainer_options { loss_options { unmatched_slot_weight: ONE } }")
    )
    assert (settings.semantic_sample_k, settings.semantic_sample_temperature) == (4096, 2.0)
    assert settings.unmatched_slot_weight == ONE


def test_names_as_in_deeplab2():
    names = build_loss(parse()).names
    assert len(names) == 7 * 4 + 2
    assert {"aux_5pq_style_loss_class_term", "mask_id_cross_entropy_loss", "semantic_loss", "total_loss"} <= set(names)


def test_a_weight_of_zero_leaves_the_term_out():
    names = build_loss(parse("trainer_options { loss_options { semantic_loss { weight: 0 } } }")).names
    assert "semantic_loss" not in names


@pytest.mark.parametrize("fraction", [0.0, 1.5])
def test_fraction_of_pixels_out_of_range(fraction):
    extra = f"trainer_options {{ loss_options {{ mask_id_cross_entropy_loss {{ top_k_percent: {fraction} }} }} }}"
    with pytest.raises(ConfigError, match=f"mask_id_cross_entropy_loss.top_k_percent.*got {fraction:g}"):
        LossSettings.from_options(parse(extra))


def test_no_loss_at_all():
    config = parse()
    config.trainer_options.ClearField("loss_options")
    with pytest.raises(ConfigError, match="at least one"):
        LossSettings.from_options(config)
