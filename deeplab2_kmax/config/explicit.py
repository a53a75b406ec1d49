"""Makes explicit what DeepLab2 infers from the names of data sets and encoders."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from google.protobuf.message import Message

from deeplab2_kmax.config.encoders import ENCODERS, FieldValue, explicit_backbone_fields
from deeplab2_kmax.config.notes import Note
from deeplab2_kmax.config.update_rules import DEFAULTS_OF_UPDATE_RULE
from deeplab2_kmax.datasets import known_datasets, load_dataset
from deeplab2_kmax.protos import config_pb2, model_pb2
from deeplab2_kmax.wording import counted


@dataclasses.dataclass(frozen=True)
class _Inferred:
    """Architecture choices that DeepLab2 takes from a word in the data set's name; fields of `MaXDeepLabOptions`."""

    num_mask_slots: int
    high_resolution_output_stride: int
    use_auxiliary_semantic_decoder: bool
    transformer_decoder_drop_path_keep_prob: float


_INFERRED_FROM_DATASET = {
    "cityscapes": _Inferred(256, 2, False, 0.8),
    "coco": _Inferred(128, 4, True, 0.8),
    "ade20k": _Inferred(128, 4, True, 1.0),
}
# DeepLab2's pixel decoder, from stride 32 to stride 2; with masks of stride 4 the last stage is left out.
_PIXEL_DECODER: dict[str, tuple[int, ...] | tuple[str, ...]] = {
    "filters": (512, 256, 128, 64, 32),
    "num_blocks": (1, 5, 1, 1, 1),
    "block_type": ("axial", "axial", "bottleneck", "bottleneck", "bottleneck"),
}
# On MaX-DeepLab's skeleton, decoder layers share the encoder's drop path: they have no keep-probability of their own.
_MAX_SKELETON = {"num_mask_slots": 128, "high_resolution_output_stride": 4}


def explicit_fields(config: config_pb2.ExperimentOptions) -> list[Note]:
    """Sets, in place, every architecture field that the config leaves to DeepLab2's inference.

    Args:
        config: its model has to be a supported one, see `support.unsupported_reason`.

    Returns:
        A note for each group of fields that was filled in; none where the config was explicit. Those about what was
        guessed from another field are to be told; those about what a name stands for are not.
    """
    notes = _name_datasets(config)
    max_deeplab = config.model_options.max_deeplab
    backbone = config.model_options.backbone
    encoder = ENCODERS[backbone.name]
    if filled := _fill(backbone, explicit_backbone_fields(backbone)):
        notes.append(Note(f"{backbone.name} is {filled}", told=False))
    if encoder.has_own_skeleton:
        inferred = {**_MAX_SKELETON, "use_auxiliary_semantic_decoder": backbone.extra_decoder_stacks == 0}
        if filled := _fill(max_deeplab, inferred):
            notes.append(Note(f"every model on MaX-DeepLab's skeleton has {filled}", told=False))
    else:
        notes += _infer_from_dataset(max_deeplab, config.train_dataset_options.dataset)
        stages = num_pixel_decoder_stages(max_deeplab)
        pixel_decoder: dict[str, FieldValue | tuple[str, ...]] = {
            name: values[:stages] for name, values in _PIXEL_DECODER.items()
        }
        if filled := _fill(max_deeplab.pixel_decoder, pixel_decoder):
            notes.append(Note(f"pixel decoder: {filled}", told=False))
    return notes + _fill_transformer_decoder(config)


def _fill_transformer_decoder(config: config_pb2.ExperimentOptions) -> list[Note]:
    """The part of `explicit_fields` that is about the transformer decoder and the loss that its fields ask for."""
    notes = []
    decoder = config.model_options.max_deeplab.transformer_decoder
    encoder = ENCODERS[config.model_options.backbone.name]
    # In this order: the encoder's name may decide the update rule, and the update rule decides other fields. A rule
    # that does not exist fills in nothing; the checks name it.
    filled = [_fill(decoder, encoder.decoder)]
    filled.append(_fill(decoder, DEFAULTS_OF_UPDATE_RULE.get(decoder.update_rule, {})))
    if not encoder.has_own_skeleton:
        filled.append(_fill(decoder, {"num_blocks": (2, 2, 2)}))
    if any(filled):
        notes.append(Note("transformer decoder: " + ", ".join(filter(None, filled)), told=False))
    losses = config.trainer_options.loss_options
    if decoder.location_sensitive and not losses.HasField("mask_approximation_loss"):
        losses.mask_approximation_loss.weight = 1.0
        notes.append(Note("reference masks are supervised: mask_approximation_loss.weight = 1.0", told=False))
    return notes


def _name_datasets(config: config_pb2.ExperimentOptions) -> list[Note]:
    """Fills in a data set that is not named, if exactly one has as many classes as the semantic head.

    DeepLab2's example configs do not name their data set: they leave it to the code that builds a model from them.
    """
    notes = []
    classes = config.model_options.max_deeplab.auxiliary_semantic_head.output_channels
    fitting = [name for name in known_datasets() if load_dataset(name).num_classes == classes]
    for field in ("train_dataset_options", "eval_dataset_options"):
        if config.HasField(field) and not getattr(config, field).dataset and len(fitting) == 1:
            getattr(config, field).dataset = fitting[0]
            of_the_model = f"{counted(classes, 'class', 'classes')} of the model"
            notes.append(Note(f"{field}.dataset: none is named, and {fitting[0]} has the {of_the_model}"))
    return notes


def _infer_from_dataset(max_deeplab: model_pb2.ModelOptions.MaXDeepLabOptions, dataset: str) -> list[Note]:
    # The path of a descriptor file says nothing: a model must not change with the folder that its data lie in.
    known = () if dataset.endswith(".json") else tuple(_INFERRED_FROM_DATASET)
    # Every other data set gets the choices for COCO.
    word = next((word for word in known if word in dataset), "coco")
    filled = _fill(max_deeplab, dataclasses.asdict(_INFERRED_FROM_DATASET[word]))
    return [Note(f"inferred from the data set name {dataset!r}, as DeepLab2 does: {filled}")] if filled else []


def num_pixel_decoder_stages(max_deeplab: model_pb2.ModelOptions.MaXDeepLabOptions) -> int:
    """How many stages the pixel decoder has: one for each of its `encoder_features`.

    Where these are not set they are, as in DeepLab2, the features from stride 32 to the stride of the masks.
    """
    named = len(max_deeplab.pixel_decoder.encoder_features)
    return named or (4 if max_deeplab.high_resolution_output_stride == 4 else 5)


def _fill(message: Message, values: Mapping[str, FieldValue | tuple[str, ...]]) -> str:
    """Sets those of the fields that are not set; returns them as text, empty where all were set."""
    filled = []
    for name, value in values.items():
        if isinstance(value, tuple):
            if getattr(message, name):
                continue
            getattr(message, name).extend(value)
        else:
            if message.HasField(name):
                continue
            setattr(message, name, value)
        filled.append(f"{name} = {value}")
    return ", ".join(filled)
