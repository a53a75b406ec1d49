"""Pixel-wise post-processing: each pixel goes to its most probable slot, each slot to its most probable class.

MaX-DeepLab (Wang et al., CVPR 2021, arXiv:2012.00759), section 3.3, "Inference".
"""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.postprocessing import segments
from deeplab2_kmax.postprocessing.settings import PostprocessingSettings
from deeplab2_kmax.postprocessing.upsampled_top2 import PeakMaps, two_strongest_slots

# The logit of slots that are taken out of the softmax. Finite, as interpolation between infinities would give NaN.
_EXCLUDED_LOGIT = -99999.0


def pixelwise_maps(
    mask_logits: tf.Tensor, classes: segments.SlotClasses, settings: PostprocessingSettings
) -> dict[str, tf.Tensor]:
    """Panoptic, instance, semantic and score maps by an argmax over slots at each pixel.

    Args:
        mask_logits: float32 [B, h, w, N].
        classes: the class of each slot.
        settings: size of the maps and thresholds.

    Returns:
        `panoptic_pred`, `instance_pred` and `semantic_pred` int32, `instance_scores` and `semantic_scores` float32,
        all [B, H, W].
    """
    slots = mask_logits.shape[-1]
    # `semantic_pred` is of the best of all slots; the other maps are of the best of the detected ones, whose softmax is
    # among themselves. So there are two searches.
    best = _best_slots(mask_logits, settings).pair // (slots + 2)
    detected = classes.confidence >= settings.class_confidence
    kept = tf.cast(detected, tf.float32)[:, tf.newaxis, tf.newaxis, :]
    peaks = _best_slots(mask_logits * kept + _EXCLUDED_LOGIT * (1.0 - kept), settings)
    best_detected = peaks.pair // (slots + 2)

    # A pixel whose best slot is not detected stays void. It does not go to the best of the detected slots.
    confident = (peaks.score > settings.pixel_confidence) & segments.look_up(detected, best)
    owner = tf.where(confident, best_detected, slots)
    # "No slot" is counted as slot N, and its count dropped.
    areas = segments.count_by_image(owner, slots + 1, settings.portable)[:, :-1]
    instance_ids = tf.broadcast_to(tf.range(1, slots + 1), tf.shape(areas))
    panoptic_ids = segments.panoptic_id_of_slots(classes, areas, instance_ids, settings)

    found = tf.reduce_any(detected, -1)[:, tf.newaxis, tf.newaxis]
    return {
        "panoptic_pred": tf.where(found, segments.look_up(panoptic_ids, owner), panoptic_ids[:, -1:, tf.newaxis]),
        "instance_pred": tf.where(found, best_detected + 1, 1),
        "semantic_pred": segments.look_up(classes.class_id, best),
        # Rounding may make a probability a little larger than 1.
        "instance_scores": tf.where(found, tf.minimum(peaks.score, 1.0), 0.0),
        "semantic_scores": tf.where(found, segments.look_up(classes.confidence, best_detected), 0.0),
    }


def _best_slots(mask_logits: tf.Tensor, settings: PostprocessingSettings) -> PeakMaps:
    return two_strongest_slots(
        mask_logits, settings.size, settings.pixel_confidence, seconds=False, portable=settings.portable
    )
