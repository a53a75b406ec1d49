"""MaX-DeepLab's skeleton: DeepLab2's figures, the place of its layers, and the variables of its backbone."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.checkpoints.keys import checkpoint_variables
from deeplab2_kmax.config import load_config
from deeplab2_kmax.losses import build_loss
from deeplab2_kmax.model import build_model
from deeplab2_kmax.model.dual_path.settings import DualPathSettings
from deeplab2_kmax.model.pixel_encoders.residual_stages import ResidualSettings


def images(batch=2, height=65, width=65):
    return tf.random.stateless_uniform([batch, height, width, 3], [1, 2], maxval=255.0)


def test_max_s_equals_deeplab2(max_s, assert_equals_deeplab2):
    assert_equals_deeplab2(max_s, "max_s_coco")


def test_narrow_max_l_equals_deeplab2(configs, small_crop, assert_equals_deeplab2):
    narrow = ("backbone.stem_width_multiplier=0.25", "backbone.backbone_width_multiplier=0.125")
    overrides = [*small_crop, *(f"model_options.{override}" for override in narrow)]
    config = load_config(str(configs / "coco" / "max_l_1025_100k.textproto"), overrides)
    assert_equals_deeplab2(build_model(config), "max_l_narrow")


def test_backbone_of_max_s_is_its_classifier(max_s):
    # DeepLab2's own test has these counts for the network, and for the classifier that it is pretrained as.
    sizes = [int(np.prod(variable.shape)) for variable in max_s.backbone_variables]
    assert (len(sizes), sum(sizes)) == (301, 41343424)


def test_decoder_goes_down_and_up_once_a_stack():
    large = DualPathSettings(ResidualSettings(output_stride=16), backbone_stacks=1, extra_stacks=1)
    assert large.backbone_strides() == [8, 4, 8, 16]
    assert large.extra_strides() == [8, 4, 8, 16, 8, 4]
    small = DualPathSettings(ResidualSettings(output_stride=32))
    assert (small.backbone_strides(), small.extra_strides()) == ([], [16, 8, 4])
    assert [small.decoder_filters(stride) for stride in (32, 16, 8, 4)] == [512, 256, 128, 64]
    assert large.decoder_filters(16) == 512


def test_layers_at_half_the_stride_have_half_the_channels():
    layer = DualPathSettings().layer_at(8)
    assert (layer.bottleneck_channels, layer.key_channels, layer.value_channels) == (128, 64, 128)
    assert (layer.center_channels, layer.num_heads, layer.feed_forward_channels) == (256, 8, 2048)


@pytest.mark.parametrize("name", ["s", "l", "cmt"])
def test_variables_without_the_backbones_rate_are_those_deeplab2_names(name, tiny_model):
    model = tiny_model(name)
    backbone = {id(variable) for variable in model.backbone_variables}
    seen = set()
    for key, variable in checkpoint_variables(model).items():
        if variable.trainable:
            pretrained = key.startswith("encoder/") and not any(
                word in key for word in ("transformer", "extra", "memory_feature")
            )
            assert (id(variable) in backbone) == pretrained, key
            seen.add(pretrained)
    assert seen == {True, False}


@pytest.mark.parametrize("name", ["s", "l", "cmt"])
def test_every_weight_learns(name, tiny, tiny_model):
    model, loss = tiny_model(name), build_loss(tiny(name))
    labels = tf.constant(np.kron(np.arange(16).reshape(4, 4), np.ones([17, 17]))[None, :65, :65] % 4, tf.int32)
    targets = {
        "semantic_gt": tf.repeat(labels, 2, 0),
        "thing_id_mask_gt": tf.repeat(tf.where(labels > 1, labels - 1, 0), 2, 0),
        "thing_id_class_gt": tf.constant([[2, 3] + [0] * 14] * 2),
        "semantic_loss_weight": tf.ones([2, 65, 65]),
    }
    with tf.GradientTape() as tape:
        outputs = model(images(), training=True)
        terms = loss(targets, outputs)
        total = tf.reduce_mean(terms["total_loss"])
    assert "auxiliary_outputs_pred" not in outputs
    assert ("reference_masks" in outputs) == (name == "cmt")
    assert np.isfinite(total)
    for variable, gradient in zip(model.trainable_variables, tape.gradient(total, model.trainable_variables)):
        assert gradient is not None and np.isfinite(tf.convert_to_tensor(gradient)).all(), variable.name


def test_any_size_gives_masks_of_stride_4(tiny_model):
    model = tiny_model("l")
    predict = tf.function(lambda x: model(x, training=False)).get_concrete_function(
        tf.TensorSpec([None, None, None, 3])
    )
    for height, width in ((33, 97), (65, 49)):
        x = images(1, height, width)
        outputs, expected = predict(x), model(x, training=False)
        masks = outputs["pixel_space_mask_logits"]
        assert masks.shape == [1, (height + 3) // 4, (width + 3) // 4, 16]
        expected = expected["pixel_space_mask_logits"]
        np.testing.assert_allclose(masks, expected, atol=1e-3 * np.abs(expected).max())


def test_intermediates_follow_the_layers(tiny_model):
    named = tiny_model("s").intermediates(images(1))
    layers = {name.split("/")[1] for name in named if name.startswith("transformer_decoder/")}
    assert layers == {"stage5_layer1", "extra_stage_layer1"}
    assignment = named["transformer_decoder/extra_stage_layer1/assignment"]
    assert assignment.shape == [1, 5, 5, 16]
    np.testing.assert_allclose(tf.reduce_sum(assignment, -1), np.ones([1, 5, 5]), atol=1e-5)
    before = named["transformer_decoder/extra_stage_layer1/centers_before"]
    np.testing.assert_array_equal(before, named["transformer_decoder/stage5_layer1/centers_after"])


def test_cmt_layers_hand_on_their_assignment_on_the_same_skeleton(tiny_model):
    model = tiny_model("cmt")
    named = model.intermediates(images(1))
    first, second = (
        named[f"transformer_decoder/{name}_layer1/assignment_logits"] for name in ("stage5", "extra_stage")
    )
    assert first.shape == second.shape == [1, 5, 5, 16]
    layer, stage = model.pixel_encoder.stages[-1].layers[0], "transformer_decoder/extra_stage_layer1"
    assert type(layer.rule).__name__ == "CmtClustering"
    pixels = named["transformer_decoder/stage5_layer1/pixels"]
    pixels = model.extra_stage0.blocks[0](pixels)
    alone = model.extra_stage0.layers[0](pixels, named[f"{stage}/centers_before"]).assignment_logits
    np.testing.assert_allclose(second, alone + first, atol=1e-4)


def test_drop_path_of_layers_follows_the_blocks(tiny):
    overrides = ("model_options.backbone.drop_path_keep_prob=0.8", "model_options.backbone.drop_path_schedule=linear")
    model = build_model(tiny("s", *overrides, "model_options.backbone.stage_blocks=1,1,1,2"))
    stage = model.pixel_encoder.stages[-1]
    assert [layer.settings.keep_prob for layer in stage.layers] == pytest.approx([0.85, 0.8])
    assert [block.keep_prob for block in stage.blocks] == pytest.approx([0.85, 0.8])
