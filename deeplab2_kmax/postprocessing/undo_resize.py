"""From maps at the network's input size back to the size of the picture."""

from __future__ import annotations

import tensorflow as tf

# Score maps jump from segment to segment, so they too take the nearest value, as in DeepLab2.
_NEAREST = frozenset(["panoptic_pred", "semantic_pred", "instance_pred", "semantic_scores", "instance_scores"])
_BILINEAR = frozenset(["semantic_probs"])


def undo_resize(maps: dict[str, tf.Tensor], resized_size: tf.Tensor, raw_size: tf.Tensor) -> dict[str, tf.Tensor]:
    """Cuts the padding off maps and resizes them to the size of the picture, corners aligned.

    Args:
        maps: maps [B,H,W] of ids and scores under DeepLab2's names, and/or `semantic_probs` [B,H,W,C]; entries of
            other names are handed through as they are.
        resized_size: int [2] or [B,2] (all rows alike: pictures of a batch are evaluated at one size), height and
            width of the picture within the padded maps, which begins at their upper left corner.
        raw_size: int [2], height and width of the picture itself.

    Returns:
        A new dictionary with the same names and dtypes, ids and scores taken from the nearest pixel, probabilities
        interpolated.
    """
    height, width = tf.unstack(tf.reshape(tf.cast(resized_size, tf.int32), [-1, 2])[0])
    undone = {}
    for name, values in maps.items():
        if name in _NEAREST:
            undone[name] = _resize(values[:, :height, :width, tf.newaxis], raw_size, "nearest")[..., 0]
        elif name in _BILINEAR:
            undone[name] = _resize(values[:, :height, :width], raw_size, "bilinear")
        else:
            undone[name] = values
    return undone


def _resize(images: tf.Tensor, size: tf.Tensor, method: str) -> tf.Tensor:
    return tf.compat.v1.image.resize(images, size, method=method, align_corners=True)
