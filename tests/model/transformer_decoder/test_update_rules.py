"""Each update rule in the network: one config field swaps them, the rest is shared."""

import dataclasses
import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.checkpoints.keys import checkpoint_variables
from deeplab2_kmax.config import load_config
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.losses.settings import LossSettings
from deeplab2_kmax.model import build_model
from deeplab2_kmax.model.heads import HeadSettings
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.transformer_decoder import DecoderLayer, TransformerDecoderSettings

FIELD = "model_options.max_deeplab.transformer_decoder."
RULES = ("max", "cmt", "kmax")


@pytest.fixture(scope="module")
def config_of(configs, tiny_overrides):
    """(overrides of the transformer decoder's fields) -> the tiny config with them."""
    path = str(configs / "shapes" / "kmax_tiny.textproto")
    return lambda *fields: load_config(path, [*tiny_overrides, *(FIELD + field for field in fields)])


@pytest.fixture(scope="module", params=RULES)
def model(request, config_of):
    model = build_model(config_of(f"update_rule={request.param}"))
    model.rule = request.param
    return model


def images(batch=2):
    return tf.random.stateless_uniform([batch, 65, 65, 3], [1, 2], maxval=255.0)


def test_checkpoint_keys_are_unique_and_none_is_left_out(model):
    assert len(checkpoint_variables(model)) == len(model.variables)


def test_gradient_reaches_every_weight(model):
    # Fresh residual branches end in a scale of zero, beyond which no gradient flows.
    for variable in model.trainable_variables:
        if "gamma" in variable.name and not np.any(variable):
            variable.assign(0.5 * tf.ones_like(variable))
    with tf.GradientTape() as tape:
        outputs = model(images(), training=True)
        loss = tf.add_n([tf.reduce_mean(tf.sin(x)) for x in tf.nest.flatten(outputs)])
    gradients = tape.gradient(loss, model.trainable_variables)
    assert [v.name for g, v in zip(gradients, model.trainable_variables) if g is None] == []


def test_intermediates_are_named_and_consistent(model):
    named = model.intermediates(images())
    outputs = model(images(), training=False)
    centers = tf.tile(model.transformer_decoder.cluster_centers, [2, 1, 1])
    for layer, size in (("stride32_layer1", 3), ("stride16_layer1", 5), ("stride8_layer1", 9)):
        place = f"transformer_decoder/{layer}"
        np.testing.assert_array_equal(named[f"{place}/centers_before"], centers)
        centers = named[f"{place}/centers_after"]
        assert named[f"{place}/assignment"].shape == [2, size, size, 16]
        total = tf.reduce_sum(named[f"{place}/assignment"], -1)
        np.testing.assert_allclose(total, np.ones([2, size, size]), atol=1e-5)
    assert {"pixel_encoder/stage5", "pixel_decoder/stride32", "pixel_decoder/stride4"} <= set(named)
    np.testing.assert_allclose(named["outputs/pixel_space_mask_logits"], outputs["pixel_space_mask_logits"], atol=1e-5)
    with pytest.raises(KeyError, match="no intermediate tensor 'pixel_encoder/stag5'; did you mean 'pixel_encoder/"):
        named["pixel_encoder/stag5"]


def test_pixel_updates_reach_the_pixel_decoders_next_stage(config_of):
    model = build_model(config_of("update_rule=max"))
    before = model.intermediates(images())
    layer = model.transformer_decoder.layers[0]
    layer.rule.pixel_attention.projection.norm.gamma.assign_add(tf.ones([32]))
    after = model.intermediates(images())
    changed = {name for name in before if np.abs(before[name] - after[name]).max() > 1e-6}
    assert "pixel_decoder/stride16" in changed and "outputs/pixel_space_mask_logits" in changed
    assert not changed & {"pixel_decoder/stride32", "transformer_decoder/stride32_layer1/assignment"}


def test_deep_supervision_is_a_choice_of_its_own(config_of):
    for fields, predictions in ((["update_rule=max"], 0), (["update_rule=max", "deep_supervision=true"], 3)):
        config = config_of(*fields)
        outputs = build_model(config)(images(), training=True)
        assert len(outputs.get("auxiliary_outputs_pred", ())) == predictions
        assert LossSettings.from_options(config).auxiliary_outputs == predictions


@pytest.mark.parametrize(
    "fields, message",
    [
        (["update_rule=kmax", "pixel_update=attention"], "pixel_update: expected 'none' with update_rule 'kmax'"),
        (["update_rule=kmax", "deep_supervision=false"], "deep_supervision: expected true, got false"),
        (["update_rule=max", "pixel_update=sum"], "got 'sum'"),
        (
            ["update_rule=max", "pixel_update=assignment"],
            "pixel_update: expected 'none' or 'attention' with update_rule 'max'",
        ),
        (["update_rule=max", "residual_assignment=true"], "residual_assignment: only update_rule 'cmt'"),
        (["update_rule=kmax", "location_sensitive=true"], "location_sensitive: only update_rule 'cmt'"),
        (["update_rule=kmax", "spatial_attention=false"], "spatial_attention: only update_rule 'cmt'"),
        (["update_rule=cmt", "pixel_update=attention"], "location_sensitive: expected pixel_update 'assignment'"),
        (["update_rule=cmt", "cluster_reduction=max"], "cluster_reduction: expected one of sum, mean"),
        (
            ["update_rule=cmt", "location_sensitive=false", "reference_mask_bias=true"],
            "reference_mask_bias: expected location_sensitive",
        ),
    ],
)
def test_contradictions_are_refused_by_field(config_of, fields, message):
    with pytest.raises(ConfigError, match=message):
        config_of(*fields)


def test_reference_masks_are_supervised_unless_told_otherwise(configs, tiny_overrides, config_of):
    loss = "trainer_options.loss_options.mask_approximation_loss.weight="
    path = str(configs / "shapes" / "kmax_tiny.textproto")
    assert LossSettings.from_options(config_of("update_rule=cmt")).mask_approximation.weight == 1.0
    without = load_config(path, [*tiny_overrides, FIELD + "update_rule=cmt", loss + "0"])
    assert LossSettings.from_options(without).mask_approximation is None
    with pytest.raises(ConfigError, match="mask_approximation_loss: expected no such loss, or .* no reference masks"):
        load_config(path, [*tiny_overrides, loss + "1"])


def ladder():
    """{step: fields} of the table in docs/cmt.md."""
    text = (pathlib.Path(__file__).parents[3] / "docs" / "cmt.md").read_text()
    rows = re.findall(r"^\| (L\d|K) \|[^|]*\| `([^`]*)` \|", text, re.MULTILINE)
    return {
        step: [field.replace(": ", "=").replace('"', "") for field in re.findall(r"\w+: \S+", f)] for step, f in rows
    }


# What each step computes: center branches, whether pixels change, logits behind the assignment, reference boxes.
STEPS = {
    "L0": (1, False, False, False),
    "L1": (1, True, False, False),
    "L2": (2, True, True, False),
    "L3": (2, True, True, False),
    "L4": (2, True, True, False),
    "L5": (2, True, True, True),
    "K": (2, False, True, False),
}


def test_every_step_of_the_ladder_is_there_and_has_its_parts(config_of):
    layers, steps = {}, ladder()
    assert list(steps) == list(STEPS)
    for step, fields in steps.items():
        config = config_of(*fields)
        settings = TransformerDecoderSettings.from_options(config.model_options.max_deeplab)
        layer = DecoderLayer(
            dataclasses.replace(settings, num_centers=5), HeadSettings(8, 4, 3), Normalization(), name=step
        )
        centers, logits = tf.random.normal([1, 5, 16]), tf.random.normal([1, 2, 2, 5])
        layer(tf.random.normal([1, 3, 3, 8]), centers, logits)
        seen = {}
        rule = layer.rule.call
        layer.rule.call = lambda inputs, training, rule=rule, seen=seen: seen.setdefault("output", rule(inputs))
        output = layer(tf.random.normal([1, 3, 3, 8]), centers, logits)
        update = seen["output"]
        parts = len(update.center_updates), update.pixel_update is not None
        assert (*parts, output.assignment_logits is not None, output.reference_boxes is not None) == STEPS[step], step
        hard = np.isin(output.assignment, (0, 1)).all()
        assert hard == (step == "K")
        layers[step] = {variable.name.split("/", 1)[1] for variable in layer.variables}
    # Steps differ in weights where something is added; the residual has none.
    assert layers["L2"] == layers["L3"] and len({frozenset(names) for names in layers.values()}) == 6


def test_the_functions_and_tests_that_docs_cmt_md_names_exist():
    root = pathlib.Path(__file__).parents[3]
    text = (root / "docs" / "cmt.md").read_text()
    sources = [path.read_text() for folder in ("tests", "deeplab2_kmax") for path in (root / folder).rglob("*.py")]
    files = {path.name for folder in ("tests", "trainer", "deeplab2_kmax") for path in (root / folder).rglob("*.py")}
    assert set(re.findall(r"\w+\.py", text)) <= files
    names = re.findall(r"\b(test_\w+)`|\.py: (?:\w+\.)?(\w+)`|`\w+\.(_\w+)`", text)
    assert len(names) > 20
    for name in map("".join, names):
        assert any(re.search(rf"(def|class) {name}\b", source) for source in sources), name
