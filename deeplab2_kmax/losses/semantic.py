"""Semantic loss: cross-entropy of the auxiliary semantic head at each pixel."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.losses.reduction import mean_of_non_zero, sample_pixels
from deeplab2_kmax.losses.settings import LossSettings
from deeplab2_kmax.losses.targets import GroundTruthMasks, strided_downsample


def semantic_loss(
    targets: Mapping[str, tf.Tensor], logits: tf.Tensor, masks: GroundTruthMasks | None, settings: LossSettings
) -> tf.Tensor:
    """Weighted cross-entropy over labelled pixels, or over a sample of them that favours small masks.

    targets: `semantic_gt` [B, H, W] i32 and `semantic_loss_weight` [B, H, W] f32. logits: [B, h, w, num_classes] f32,
    indexed by class id. masks: only read if pixels are sampled, and then of the same h, w. Returns [B] f32.

    Raises:
      ConfigError: the head's channels are not the data set's classes, or sizes do not fit.
    """
    if logits.shape[3] != settings.num_classes:
        raise ConfigError(
            "model_options.max_deeplab.auxiliary_semantic_head.output_channels: expected the data set's "
            f"{settings.num_classes} classes, came {logits.shape[3]}"
        )
    size = logits.shape[1:3]
    shape = [tf.shape(logits)[0], size[0] * size[1]]
    labels = tf.reshape(strided_downsample(targets["semantic_gt"], size), shape)
    weights = tf.reshape(strided_downsample(targets["semantic_loss_weight"], size), shape)
    logits = tf.reshape(logits, [*shape, settings.num_classes])
    count = settings.semantic_sample_k
    if 0 < count < shape[1]:
        chosen = sample_pixels(masks.pixel_area, masks.pixel_is_labelled, count, settings.semantic_sample_temperature)
        labels, weights, logits = (tf.gather(x, chosen, batch_dims=1) for x in (labels, weights, logits))
    known = (labels != settings.ignore_label) & (labels >= 0) & (labels < settings.num_classes)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.where(known, labels, 0), logits)
    losses = losses * tf.where(known, weights, 0.0)
    return settings.semantic.weight * mean_of_non_zero(losses, settings.semantic.top_k)
