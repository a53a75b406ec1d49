"""A model that holds nothing but a pixel encoder."""

from __future__ import annotations

import tensorflow as tf


class EncoderInModel(tf.keras.Model):
    """Gives a pixel encoder the place that it has in a whole network, and so its checkpoint keys."""

    def __init__(self, pixel_encoder: tf.keras.layers.Layer):
        super().__init__()
        self.pixel_encoder = pixel_encoder

    def call(self, x, training=False):
        return self.pixel_encoder(x, training=training)
