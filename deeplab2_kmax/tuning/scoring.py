"""Panoptic quality of each image under some post-processing, from raw outputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.evaluation.panoptic_quality import PanopticQuality, PanopticQualityResult
from deeplab2_kmax.postprocessing import build_postprocessor, undo_resize
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.tuning.raw_outputs import RawOutputs

_BATCH = 8


def image_states(config: config_pb2.ExperimentOptions, images: Sequence[RawOutputs]) -> np.ndarray:
    """The state of panoptic quality of each image, float64 [N, 4, C], with the config's post-processing."""
    postprocess = build_postprocessor(config)
    quality = PanopticQuality(load_dataset(config.eval_dataset_options.dataset))
    states = []
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH]
        outputs = [image.outputs() for image in batch]
        # Each setting is traced once, which takes half a second; a last batch of another size would be another trace.
        outputs += outputs[:1] * (min(_BATCH, len(images)) - len(batch))
        maps = postprocess({name: tf.stack([each[name] for each in outputs]) for name in outputs[0]})
        for index, image in enumerate(batch):
            prediction = undo_resize(
                {"panoptic_pred": maps["panoptic_pred"][index : index + 1]}, image.size_resized, image.truth.shape
            )
            quality.reset()
            quality.update(image.truth, prediction["panoptic_pred"].numpy()[0])
            states.append(quality.state)
    return np.stack(states)


def result_of(config: config_pb2.ExperimentOptions, states: np.ndarray) -> PanopticQualityResult:
    """The panoptic quality of images with these states."""
    return PanopticQualityResult(load_dataset(config.eval_dataset_options.dataset), *states.sum(0))
