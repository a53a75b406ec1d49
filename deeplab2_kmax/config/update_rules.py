"""The defaults of the transformer decoder's fields under each update rule, and which values contradict each other."""

from __future__ import annotations

from deeplab2_kmax.config.problems import choice_problems
from deeplab2_kmax.protos import config_pb2, model_pb2
from deeplab2_kmax.wording import did_you_mean

# Defaults: what the paper of each rule does.
DEFAULTS_OF_UPDATE_RULE: dict[str, dict[str, bool | str]] = {
    "max": {"deep_supervision": False, "pixel_update": "attention"},
    "cmt": {
        "deep_supervision": False,
        "pixel_update": "assignment",
        "residual_assignment": True,
        "location_sensitive": True,
    },
    "kmax": {"deep_supervision": True, "pixel_update": "none"},
}
_PIXEL_UPDATES = {"max": ("none", "attention"), "cmt": ("none", "attention", "assignment"), "kmax": ("none",)}
_CMT_ONLY = (
    "residual_assignment",
    "location_sensitive",
    "spatial_attention",
    "cluster_reduction",
    "reference_mask_bias",
)
_DECODER = "model_options.max_deeplab.transformer_decoder"


def update_rule_problems(config: config_pb2.ExperimentOptions) -> list[str]:
    """One message for each field that contradicts the update rule, the decoder's other fields or the losses."""
    decoder = config.model_options.max_deeplab.transformer_decoder
    rule = decoder.update_rule
    if rule not in DEFAULTS_OF_UPDATE_RULE:
        return choice_problems(f"{_DECODER}.update_rule", rule, DEFAULTS_OF_UPDATE_RULE)
    problems = []
    if decoder.pixel_update not in _PIXEL_UPDATES[rule]:
        expected = " or ".join(map(repr, _PIXEL_UPDATES[rule]))
        problems.append(
            f"{_DECODER}.pixel_update: expected {expected} with update_rule {rule!r}, got {decoder.pixel_update!r}"
            f"{did_you_mean(decoder.pixel_update, _PIXEL_UPDATES[rule])}"
        )
    if rule == "kmax" and not decoder.deep_supervision:
        problems.append(f"{_DECODER}.deep_supervision: expected true, got false; k-means needs supervised masks")
    if rule == "cmt":
        problems += _cmt_problems(decoder)
    else:
        problems += _not_cmt_problems(decoder)
    losses = config.trainer_options.loss_options
    asked_for = losses.HasField("mask_approximation_loss") and losses.mask_approximation_loss.weight
    if asked_for and not decoder.location_sensitive:
        problems.append(
            "trainer_options.loss_options.mask_approximation_loss: expected no such loss, or"
            f" {_DECODER}.location_sensitive true; without it there are no reference masks to learn"
        )
    return problems


def _cmt_problems(decoder: model_pb2.ModelOptions.TransformerDecoderOptions) -> list[str]:
    problems = []
    problems += choice_problems(f"{_DECODER}.cluster_reduction", decoder.cluster_reduction, ("sum", "mean"))
    if decoder.location_sensitive and decoder.pixel_update != "assignment":
        problems.append(
            f"{_DECODER}.location_sensitive: expected pixel_update 'assignment', which the coordinate convolution is a"
            f" part of, got {decoder.pixel_update!r}"
        )
    if decoder.reference_mask_bias and not decoder.location_sensitive:
        problems.append(f"{_DECODER}.reference_mask_bias: expected location_sensitive true, got false")
    return problems


def _not_cmt_problems(decoder: model_pb2.ModelOptions.TransformerDecoderOptions) -> list[str]:
    """Other rules have no use for CMT's fields, so these may be set to their proto default only."""
    problems = []
    for name in _CMT_ONLY:
        value = getattr(decoder, name)
        if value != decoder.DESCRIPTOR.fields_by_name[name].default_value:
            problems.append(
                f"{_DECODER}.{name}: only update_rule 'cmt' has it, got {value!r} with {decoder.update_rule!r}"
            )
    return problems
