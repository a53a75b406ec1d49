"""What the user should know about a config that was read: `Note`, and which of its fields are ignored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from google.protobuf.message import Message

from deeplab2_kmax.config.encoders import ENCODERS
from deeplab2_kmax.protos import config_pb2


class Note(NamedTuple):
    """A sentence about a config.

    Attributes:
        text: the sentence.
        told: whether programs print it. False for what a name always stands for, such as the sizes of an encoder; only
            `deeplab2-kmax config` lists these.
    """

    text: str
    told: bool = True


_SEPARABLE = "the convolution is always a separable one"
_NO_ACTIVATION = "mask transformers have no such activation"
_ONE_FORM = "this loss has one form"
_OTHER_FAMILY = "mask transformers have no such loss"
_NO_CENTERS = "mask transformers have no center points to find"
_DATA = ("train_dataset_options", "eval_dataset_options")
# Fields that no supported model reads -> why. Those of DeepLab2's other families stand for the messages they begin.
IGNORED: Mapping[str, str] = {
    "trainer_options.solver_options.weight_decay": (
        "as in DeepLab2's kMaX models, there is no L2 penalty; adamw_weight_decay is what decays weights"
    ),
    **{
        f"trainer_options.loss_options.{name}": _OTHER_FAMILY
        for name in ("center_loss", "regression_loss", "motion_loss", "next_regression_loss", "depth_loss")
    },
    **{
        f"trainer_options.loss_options.{name}.name": _ONE_FORM
        for name in (
            "pq_style_loss",
            "mask_id_cross_entropy_loss",
            "instance_discrimination_loss",
            "mask_approximation_loss",
        )
    },
    "evaluator_options.center_score_threshold": _NO_CENTERS,
    "evaluator_options.nms_kernel": _NO_CENTERS,
    "evaluator_options.keep_k_centers": _NO_CENTERS,
    "evaluator_options.merge_semantic_and_instance_with_tf_op": "there is no compiled operation, and none is needed",
    "eval_dataset_options.augmentations": "images are evaluated without augmentation",
    "eval_dataset_options.seed": "nothing is drawn in evaluation",
    "eval_dataset_options.resume_in_order": "evaluation begins with the first record",
    "eval_dataset_options.shuffle_buffer_size": "evaluation does not shuffle",
    **{f"{data}.sigma": _NO_CENTERS for data in _DATA},
    **{f"{data}.thing_id_mask_annotations": "mask transformers always train on instance masks" for data in _DATA},
    "model_options.restore_instance_last_layer_from_initial_checkpoint": "mask transformers have no instance heads",
    "model_options.decoder.feature_key": "the semantic decoder takes the encoder's last stage",
    "model_options.decoder.decoder_conv_type": _SEPARABLE,
    "model_options.decoder.aspp_use_only_1x1_proj_conv": "the semantic decoder always has the whole ASPP",
    **{
        f"model_options.max_deeplab.{head}.{name}": why
        for head in ("pixel_space_head", "auxiliary_semantic_head")
        for name, why in (
            ("head_conv_type", _SEPARABLE),
            ("max_value_after_activation", _NO_ACTIVATION),
            ("min_value_after_activation", _NO_ACTIVATION),
        )
    },
}
_FIXED = "encoders on the skeleton of kMaX-DeepLab have it fixed"
# Fields that encoders of the skeleton "kmax_..." do not read, as in DeepLab2; those of MaX-DeepLab's skeleton do.
IGNORED_BY_KMAX: Mapping[str, str] = {
    f"model_options.backbone.{name}": _FIXED
    for name in (
        "output_stride",
        "use_squeeze_and_excite",
        "drop_path_schedule",
        "stem_width_multiplier",
        "backbone_width_multiplier",
        "backbone_layer_multiplier",
        "use_sac_beyond_stride",
    )
}
# Fields that MaX-DeepLab's skeleton does not read.
IGNORED_BY_MAX: Mapping[str, str] = {
    "model_options.max_deeplab.pixel_decoder": "MaX-DeepLab's skeleton has no pixel decoder",
    "model_options.max_deeplab.activate_semantic_skips": "MaX-DeepLab's skeleton always activates these features",
}
# The one value of a field that is what happens anyway -> of the field's path.
_HAPPENS_ANYWAY: Mapping[str, Any] = {
    "model_options.decoder.feature_key": "feature_semantic",
    **{f"{data}.thing_id_mask_annotations": True for data in _DATA},
}


def ignored_fields(config: config_pb2.ExperimentOptions) -> list[Note]:
    """A note for each field that the config sets to another value than the default, and that nothing reads.

    Args:
        config: its model is a supported one.
    """
    own_skeleton = ENCODERS[config.model_options.backbone.name].has_own_skeleton
    of_skeleton = IGNORED_BY_MAX if own_skeleton else IGNORED_BY_KMAX
    return [
        Note(f"{path} is ignored: {why}") for path, why in {**IGNORED, **of_skeleton}.items() if _is_set(config, path)
    ]


def _is_set(config: Message, path: str) -> bool:
    """Whether a field has a value that asks for something that does not happen anyway."""
    *parents, leaf = path.split(".")
    message = config
    for name in parents:
        message = getattr(message, name)
    value = getattr(message, leaf)
    if isinstance(value, Message):
        return message.HasField(leaf) and any(_differences(value))
    if path in _HAPPENS_ANYWAY:
        return message.HasField(leaf) and value != _HAPPENS_ANYWAY[path]
    # An unset field of a message that is not there has its default, too.
    return value != getattr(type(message)(), leaf)


def _differences(message: Message) -> Iterator[bool]:
    """Whether it differs from its default, of each field of a message that is set."""
    for field, value in message.ListFields():
        if isinstance(value, Message):
            yield from _differences(value)
        else:
            yield value != getattr(type(message)(), field.name)
