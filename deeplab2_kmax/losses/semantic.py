"""Semantic loss: cross-entropy of the auxiliary semantic head's classes at each pixel."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.losses.reduction import mean_of_non_zero, sample_pixels
from deeplab2_kmax.losses.settings import LossSettings
from deeplab2_kmax.losses.targets import GroundTruthMasks, strided_downsample
from deeplab2_kmax.wording import counted


def semantic_loss(
    targets: Mapping[str, tf.Tensor], logits: tf.Tensor, masks: GroundTruthMasks | None, settings: LossSettings
) -> tf.Tensor:
    """Weighted cross-entropy over labelled pixels, or over a sample of them that favors small masks.

    Args:
        targets: `semantic_gt` int32 [B, H, W], class ids, and `semantic_loss_weight` float32 [B, H, W].
        logits: float32 [B, h, w, num_classes], in the order of class ids.
        masks: ground truth of the same h and w; needed only if pixels are sampled.
        settings: `semantic` is set.

    Returns:
        float32 [B].

    Raises:
        ConfigError: the channels of the head are not the classes of the data set, or sizes do not fit.
    """
    term = settings.semantic
    assert term is not None  # `total` computes no terms without settings.
    if logits.shape[3] != settings.num_classes:
        raise ConfigError(
            "model_options.max_deeplab.auxiliary_semantic_head.output_channels: expected the data set's "
            f"{counted(settings.num_classes, 'class', 'classes')}, got {logits.shape[3]}"
        )
    size = logits.shape[1:3]
    shape = [tf.shape(logits)[0], size[0] * size[1]]
    labels = tf.reshape(strided_downsample(targets["semantic_gt"], size), shape)
    weights = tf.reshape(strided_downsample(targets["semantic_loss_weight"], size), shape)
    logits = tf.reshape(logits, [*shape, settings.num_classes])
    count = settings.semantic_sample_k
    if 0 < count < shape[1]:
        assert masks is not None  # `total` makes them where pixels are sampled.
        chosen = sample_pixels(masks.pixel_area, masks.pixel_is_labelled, count, settings.semantic_sample_temperature)
        labels, weights, logits = (tf.gather(x, chosen, batch_dims=1) for x in (labels, weights, logits))
    # The cross-entropy needs a label for every pixel (one out of range gives NaN on GPUs and an error on CPUs). Pixels
    # without a class get class 0, and the weight 0.
    known = (labels != settings.ignore_label) & (labels >= 0) & (labels < settings.num_classes)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.where(known, labels, 0), logits)
    losses = losses * tf.where(known, weights, 0.0)
    return term.weight * mean_of_non_zero(losses, term.top_k)
