"""Converts one checkpoint: reads the tensors, compares them with the model, writes checkpoint and config."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping

import numpy as np

from deeplab2_kmax import files
from deeplab2_kmax.checkpoint_conversion.torch_files import read_state_dict
from deeplab2_kmax.checkpoint_conversion.torch_tensors import class_order, from_torch, is_ignored, torch_name
from deeplab2_kmax.checkpoints import save_checkpoint
from deeplab2_kmax.checkpoints.cleanup import can_be_opened
from deeplab2_kmax.checkpoints.files import INDEX
from deeplab2_kmax.checkpoints.keys import checkpoint_variables
from deeplab2_kmax.config import check_config, config_to_text
from deeplab2_kmax.config.encoders import ENCODERS
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.datasets.descriptor import DatasetDescriptor
from deeplab2_kmax.errors import CheckpointError, ConfigError
from deeplab2_kmax.model import build_model
from deeplab2_kmax.protos import config_pb2, model_pb2
from deeplab2_kmax.wording import some_of

_NAMED_AT_MOST = 8


@dataclasses.dataclass(frozen=True)
class Conversion:
    """The result of a conversion.

    Attributes:
        checkpoint: prefix of the checkpoint that was written.
        config: path of the config that was written beside it.
        converted: number of tensors converted.
        ignored: names of tensors that are not weights of the network, such as counters.
    """

    checkpoint: str
    config: str
    converted: int
    ignored: tuple[str, ...]


def convert_checkpoint(config: config_pb2.ExperimentOptions, source: str, output: str) -> Conversion:
    """Writes the weights in `source` as a checkpoint in DeepLab2's layout, and the config that goes with it.

    Args:
        config: from `load_config`: encoder, sizes and data set of the model. In the config that is written, the fields
            in which the port differs from DeepLab2 are changed, see `as_in_pytorch`.
        source: a `.pth` file of PyTorch or a `.pkl` file of detectron2, local or remote.
        output: prefix of the checkpoint to write, local or remote; the config becomes `<output>.textproto`. What a
            conversion to the same output that was killed has left is replaced.

    Raises:
        CheckpointError: `source` cannot be read or does not fit the model exactly, or `output` exists already. Nothing
            has been written then. Or `output` cannot be written.
        ConfigError: the port has no such encoder.
    """
    config_path = f"{output}.textproto"
    ported = as_in_pytorch(config)
    config_text = config_to_text(ported)
    _refuse_to_replace(output, config_path, config_text)
    arrays = read_state_dict(source)
    model = build_model(ported)
    variables = checkpoint_variables(model)
    values = converted_values(
        arrays,
        {key: tuple(variable.shape) for key, variable in variables.items()},
        load_dataset(config.train_dataset_options.dataset),
        config.model_options.max_deeplab.use_auxiliary_semantic_decoder,
        f"{source}: does not fit {config.model_options.backbone.name} on {config.train_dataset_options.dataset}",
    )
    for key, value in values.items():
        variables[key].assign(value)
    try:
        # First, so that it tells whose checkpoint it is that a conversion which was killed has left.
        files.write_text(config_path, config_text)
    except OSError as error:
        raise CheckpointError(f"cannot write {config_path!r}: {error.strerror}") from error
    save_checkpoint(model, output)
    return Conversion(output, config_path, len(values), tuple(sorted(filter(is_ignored, arrays))))


def _refuse_to_replace(output: str, config_path: str, config_text: str) -> None:
    """Raises CheckpointError if there is something that this conversion, killed while it wrote, cannot have left."""
    index = output + INDEX
    if files.exists(config_path):
        with contextlib.suppress(OSError):
            ours = files.read_bytes(config_path) == config_text.encode()
            if ours and not (files.exists(index) and can_be_opened(output)):
                return
        raise CheckpointError(f"{config_path} exists already; remove it or choose another output")
    if files.exists(index):
        raise CheckpointError(f"{index} exists already; remove it or choose another output")


def converted_values(
    arrays: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
    dataset: DatasetDescriptor,
    semantic_decoder: bool,
    complaint: str = "the state dict does not fit the model",
) -> dict[str, np.ndarray]:
    """Converts the arrays of a state dict to values of the model's variables.

    Args:
        arrays: by their names in the state dict.
        shapes: of the model's variables by their DeepLab2 checkpoint keys.
        dataset: determines the order of the classes.
        semantic_decoder: whether the semantic branch has a decoder (ASPP and skip connections).
        complaint: beginning of the message of an error.

    Returns:
        float32 values by DeepLab2 checkpoint key.

    Raises:
        CheckpointError: some variables have no tensor, some tensors no variable or another shape; they are named.
    """
    names = {key: torch_name(key, semantic_decoder) for key in shapes}
    missing = sorted(name for name in names.values() if name not in arrays)
    unused = sorted(name for name in arrays.keys() - set(names.values()) if not is_ignored(name))
    values, misshaped = {}, []
    for key, name in names.items():
        if name not in arrays:
            continue
        value = from_torch(key, arrays[name], shapes[key])
        if value is None:
            misshaped.append(f"{name} {list(arrays[name].shape)} for {key} {list(shapes[key])}")
        else:
            order = class_order(key, dataset)
            values[key] = np.asarray(value if order is None else value[..., order], np.float32)
    problems = [
        f"{len(named)} {what}: {some_of(named, _NAMED_AT_MOST)}"
        for what, named in (("missing", missing), ("unused", unused), ("misshaped", misshaped))
        if named
    ]
    if problems:
        raise CheckpointError("\n    ".join([f"{complaint}; nothing was written", *problems]))
    return values


def as_in_pytorch(config: config_pb2.ExperimentOptions) -> config_pb2.ExperimentOptions:
    """A copy of `config` with which this network computes what bytedance/kmax-deeplab computes.

    Args:
        config: from `load_config`.

    Raises:
        ConfigError: the port has no such encoder.
    """
    ported = config_pb2.ExperimentOptions()
    ported.CopyFrom(config)
    backbone, max_deeplab = ported.model_options.backbone, ported.model_options.max_deeplab
    max_deeplab.pixel_decoder.bottleneck_atrous_rate = 1
    kind = ENCODERS[backbone.name].kind
    if kind == "resnet":
        _as_pytorch_resnet(backbone, max_deeplab)
    elif kind == "convnext":
        max_deeplab.activate_semantic_skips = False
    else:
        raise ConfigError(
            "model_options.backbone.name: expected an encoder of bytedance/kmax-deeplab, ResNet-50 or ConvNeXt, got"
            f" {backbone.name!r}"
        )
    check_config(ported, "config of the converted checkpoint")
    return ported


def _as_pytorch_resnet(
    backbone: model_pb2.ModelOptions.BackboneOptions, max_deeplab: model_pb2.ModelOptions.MaXDeepLabOptions
) -> None:
    """Sets the fields in which the port's ResNet differs: it is torchvision's, with a max-pool after the stem."""
    backbone.stem_max_pool = True
    backbone.activated_features = True
    if len(max_deeplab.pixel_decoder.filters) == 5:
        # The max-pool brings the stem to the stride of stage 2. The port's decoder reads the stem before stage 2.
        max_deeplab.pixel_decoder.encoder_features[:] = ["stage5", "stage4", "stage3", "stage1", "stage2"]
        max_deeplab.high_resolution_output_stride = 4
