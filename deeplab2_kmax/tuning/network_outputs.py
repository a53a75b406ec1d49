"""Runs the network of a checkpoint once over the evaluation images, or takes what it said from a folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from deeplab2_kmax import files
from deeplab2_kmax.checkpoints import resolve_checkpoint
from deeplab2_kmax.checkpoints.files import fingerprint
from deeplab2_kmax.errors import ConfigError, DataError
from deeplab2_kmax.input_pipeline import build_dataset, data_errors
from deeplab2_kmax.model.averaged_passes import in_passes
from deeplab2_kmax.postprocessing import LOGITS
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.serving.inference import restored_model
from deeplab2_kmax.tuning.raw_outputs import RawOutputs, read_outputs, write_outputs
from deeplab2_kmax.wording import counted


def network_outputs(
    config: config_pb2.ExperimentOptions,
    checkpoint: str | os.PathLike[str],
    folder: str | None,
    most_images: int,
    say: Callable[[str], object],
) -> list[RawOutputs]:
    """The raw outputs of the first evaluation images.

    Args:
        config: the experiment.
        checkpoint: a prefix, or a folder, of which the last whole checkpoint is taken.
        folder: where they are kept, local or remote; what it holds already is taken. None keeps them in memory only.
        most_images: how many images at most.
        say: prints a line.

    Returns:
        One for each image, in the order of the data set.

    Raises:
        ConfigError: the data set has no labels, or the config cannot be built.
        CheckpointError: there is no checkpoint, or it does not fit the model.
        UserError: the folder holds outputs of something else, or cannot be written to.
        DataError: there are no images, or they cannot be read.
    """
    options = config.eval_dataset_options
    if not options.decode_groundtruth_label:
        raise ConfigError(
            "eval_dataset_options.decode_groundtruth_label: expected true, as tuning measures against labels; got false"
        )
    about = {
        "checkpoint": fingerprint(resolve_checkpoint(os.fspath(checkpoint))),
        "settings": _settings(config),
        "most_images": most_images,
    }
    if folder is not None and (kept := read_outputs(folder, about)) is not None:
        say(f"raw outputs of {counted(len(kept), 'image')} are there already: {files.absolute(folder)}")
        return kept
    images = _run(config, checkpoint, most_images, say)
    if folder is not None:
        write_outputs(folder, images, about)
        say(f"raw outputs kept in {files.absolute(folder)}")
    return images


def _settings(config: config_pb2.ExperimentOptions) -> str:
    """16 hexadecimal digits that identify network and data; what is tuned does not count."""
    options = config_pb2.ExperimentOptions()
    options.model_options.CopyFrom(config.model_options)
    options.eval_dataset_options.CopyFrom(config.eval_dataset_options)
    # What of these options the outputs of the network depend on.
    options.evaluator_options.use_averaged_weights = config.evaluator_options.use_averaged_weights
    options.evaluator_options.eval_scales[:] = config.evaluator_options.eval_scales
    options.evaluator_options.add_flipped_images = config.evaluator_options.add_flipped_images
    return hashlib.sha256(options.SerializeToString(deterministic=True)).hexdigest()[:16]


def _run(
    config: config_pb2.ExperimentOptions,
    checkpoint: str | os.PathLike[str],
    most_images: int,
    say: Callable[[str], object],
) -> list[RawOutputs]:
    config, model, prefix = restored_model(config, checkpoint)
    say(f"running the network of {prefix} over the evaluation images, once")

    network = in_passes(model, config.evaluator_options)

    def forward(images: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = network(images, training=False)
        return {name: outputs[name] for name in LOGITS}

    run = tf.function(forward, autograph=False, reduce_retracing=True)
    images: list[RawOutputs] = []
    options = config.eval_dataset_options
    with data_errors(options, is_training=False):
        for batch in build_dataset(options, is_training=False):
            outputs = run(batch["image"])
            masks, classes = (outputs[name].numpy() for name in LOGITS)
            facts = {name: batch[name].numpy() for name in ("image_name", "size_raw", "size_resized", "panoptic_raw")}
            for index, (height, width) in enumerate(facts["size_raw"].tolist()):
                images.append(
                    RawOutputs.of_image(
                        facts["image_name"][index].decode(errors="backslashreplace"),
                        masks[index],
                        classes[index],
                        facts["size_resized"][index],
                        # Batches pad smaller images below and to the right. A copy, or the batch would stay in memory.
                        np.array(facts["panoptic_raw"][index][:height, :width]),
                    )
                )
            if len(images) >= most_images:
                break
    if not images:
        raise DataError("expected at least one evaluation image, got none; the data set has no record that is read")
    return images[:most_images]
