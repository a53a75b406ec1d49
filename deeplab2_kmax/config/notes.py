"""What the user should know about a config that was read: `Note`, and which of its fields are ignored."""

from __future__ import annotations

from typing import NamedTuple

from google.protobuf.message import Message

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
# Fields of DeepLab2 that a supported model does not read -> why.
_IGNORED = {
    "trainer_options.solver_options.weight_decay": (
        "as in DeepLab2's kMaX models, there is no L2 penalty; adamw_weight_decay is what decays weights"
    ),
    "model_options.decoder.decoder_conv_type": _SEPARABLE,
    "model_options.decoder.aspp_use_only_1x1_proj_conv": "the semantic decoder always has the whole ASPP",
    "model_options.max_deeplab.pixel_space_head.head_conv_type": _SEPARABLE,
    "model_options.max_deeplab.pixel_space_head.max_value_after_activation": _NO_ACTIVATION,
    "model_options.max_deeplab.pixel_space_head.min_value_after_activation": _NO_ACTIVATION,
    "model_options.max_deeplab.auxiliary_semantic_head.head_conv_type": _SEPARABLE,
    "model_options.max_deeplab.auxiliary_semantic_head.max_value_after_activation": _NO_ACTIVATION,
    "model_options.max_deeplab.auxiliary_semantic_head.min_value_after_activation": _NO_ACTIVATION,
}


def ignored_fields(config: config_pb2.ExperimentOptions) -> list[Note]:
    """A note for each field that the config sets to another value than the default, and that nothing reads."""
    notes = []
    for path, why in _IGNORED.items():
        message: Message = config
        *parents, leaf = path.split(".")
        for name in parents:
            message = getattr(message, name)
        # An unset field of a message that is not there has its default, too.
        if getattr(message, leaf) != getattr(type(message)(), leaf):
            notes.append(Note(f"{path} is ignored: {why}"))
    return notes
