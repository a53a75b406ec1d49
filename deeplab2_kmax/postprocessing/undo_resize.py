"""Brings maps from the network's input size back to the size of the picture."""

from __future__ import annotations

import tensorflow as tf

# Ids must not be mixed. Scores jump from segment to segment as ids do, so they take the nearest value too, as in
# DeepLab2.
_NEAREST = frozenset(["panoptic_pred", "semantic_pred", "instance_pred", "semantic_scores", "instance_scores"])


def undo_resize(maps: dict[str, tf.Tensor], resized_size: tf.Tensor, raw_size: tf.Tensor) -> dict[str, tf.Tensor]:
    """Cuts the padding off maps and resizes them to the size of the picture, with corners aligned.

    Args:
        maps: ids and scores [B, H, W] under DeepLab2's names; any of them may be missing. Entries of other names are
            returned as they are.
        resized_size: int [2] or [B, 2], height and width of the picture within the maps, where it lies in the upper
            left corner, with padding to the right and below. Rows are expected to be equal; the first one is used.
        raw_size: int [2], height and width of the picture itself.

    Returns:
        A new dictionary with the same names and dtypes. Ids and scores are those of the nearest pixel.
    """
    height, width = tf.unstack(tf.reshape(tf.cast(resized_size, tf.int32), [-1, 2])[0])
    undone = {}
    for name, values in maps.items():
        if name in _NEAREST:
            undone[name] = _resize(values[:, :height, :width, tf.newaxis], raw_size)[..., 0]
        else:
            undone[name] = values
    return undone


def _resize(images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    # tf.image.resize of TensorFlow 2 cannot align corners.
    return tf.compat.v1.image.resize(images, size, method="nearest", align_corners=True)
