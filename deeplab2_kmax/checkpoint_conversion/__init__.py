"""Weights of bytedance/kmax-deeplab, the PyTorch port of kMaX-DeepLab, as checkpoints of ours.

    conversion = convert_checkpoint(load_config("configs/coco/kmax_r50.textproto"), "kmax_r50.pth", "out/kmax_r50")

One file reads the source (`torch_files`), one knows the names (`torch_names`), one the axes (`torch_layouts`) and one
the places where the port computes something else than DeepLab2 (`torch_config`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from deeplab2_kmax.checkpoint_conversion.torch_config import as_in_pytorch
from deeplab2_kmax.checkpoint_conversion.torch_files import read_state_dict
from deeplab2_kmax.checkpoint_conversion.torch_layouts import class_order, from_torch
from deeplab2_kmax.checkpoint_conversion.torch_names import is_ignored, torch_name
from deeplab2_kmax.checkpoints import save_checkpoint
from deeplab2_kmax.checkpoints.keys import checkpoint_variables
from deeplab2_kmax.config import config_to_text
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.datasets.descriptor import DatasetDescriptor
from deeplab2_kmax.errors import CheckpointError
from deeplab2_kmax.model import build_model
from deeplab2_kmax.protos import config_pb2

__all__ = ["Conversion", "as_in_pytorch", "convert_checkpoint", "converted_values", "read_state_dict"]

_NAMED_AT_MOST = 8


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What a conversion did.

    Attributes:
        checkpoint: prefix of the checkpoint that was written.
        config: path of the config that was written beside it.
        converted: number of tensors converted.
        ignored: names of tensors that are no weights of the network, such as counters.
    """

    checkpoint: str
    config: str
    converted: int
    ignored: tuple[str, ...]


def convert_checkpoint(config: config_pb2.ExperimentOptions, source: str, output: str) -> Conversion:
    """Writes the weights in `source` as a checkpoint in DeepLab2's layout, and the config that goes with it.

    Args:
        config: from `load_config`: encoder, sizes and data set of the model. Where the port computes something else
            than DeepLab2, the config that is written says so.
        source: `.pth` of PyTorch or `.pkl` of detectron2.
        output: prefix of the checkpoint to write; the config becomes `<output>.textproto`.

    Raises:
        CheckpointError: `source` is not readable or does not fit the model exactly, or `output` is there already.
            Nothing has been written then.
        ConfigError: the port has no such encoder.
    """
    config_path = f"{output}.textproto"
    for path in (f"{output}.index", config_path):
        if tf.io.gfile.exists(path):
            raise CheckpointError(f"{path} is there already; remove it or choose another output")
    ported = as_in_pytorch(config)
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
    save_checkpoint(model, output)
    try:
        with tf.io.gfile.GFile(config_path, "w") as file:
            file.write(config_to_text(ported))
    except tf.errors.OpError as error:
        raise CheckpointError(f"cannot write {config_path!r}: {error}") from error
    return Conversion(output, config_path, len(values), tuple(sorted(filter(is_ignored, arrays))))


def converted_values(
    arrays: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
    dataset: DatasetDescriptor,
    semantic_decoder: bool,
    complaint: str = "the state dict does not fit the model",
) -> dict[str, np.ndarray]:
    """A state dict's arrays as float32 values of our variables, by DeepLab2 checkpoint key.

    Args:
        arrays: by their names in the state dict.
        shapes: of the model's variables, by DeepLab2 checkpoint key.
        dataset: tells the order of the classes.
        semantic_decoder: whether the semantic branch has a decoder.
        complaint: begins the message of an error.

    Raises:
        CheckpointError: naming every variable without a tensor, every tensor without a variable and every tensor of
            another shape.
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
        f"{len(named)} {what}: {', '.join(named[:_NAMED_AT_MOST])}{', ...' if len(named) > _NAMED_AT_MOST else ''}"
        for what, named in (("missing", missing), ("unused", unused), ("misshaped", misshaped))
        if named
    ]
    if problems:
        raise CheckpointError("\n    ".join([f"{complaint}; nothing was written", *problems]))
    return values
