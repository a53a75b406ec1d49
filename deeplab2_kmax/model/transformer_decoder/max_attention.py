"""MaX-DeepLab's dual-path attention (Wang et al., CVPR 2021, section 3.2): softmax over space.

With queries, keys and values (q_p, k_p, v_p) of pixels and (q_c, k_c, v_c) of centers, and HW pixels, N centers:

    centers gather   U_c = W(act(norm(softmax_{HW+N}(norm(q_c [k_p; k_c]^T)) [v_p; v_c])))     memory <- pixels, memory
    pixels gather    U_p = W(act(norm(softmax_N(norm(q_p k_c^T)) v_c)))                         pixels <- memory

Centers look at pixels and at each other in one softmax. Both updates start from the centers as they came in.
"""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.transformer_decoder.attention import AttentionBranch, attend_to_both, attention_projection
from deeplab2_kmax.model.transformer_decoder.settings import TransformerDecoderSettings
from deeplab2_kmax.model.transformer_decoder.update_rule import (
    RuleInput,
    RuleOutput,
    flatten_pixels,
    unflatten_pixels,
)


class MaxAttention(tf.keras.layers.Layer):
    """Dual-path attention; `settings.pixel_update` says whether pixels gather from centers, "attention" or "none".

    The assignment it reports is the attention weight of each pixel over the centers, averaged over heads; where pixels
    gather nothing, that of the centers over the pixels, divided by its sum over the centers.
    """

    def __init__(
        self,
        settings: TransformerDecoderSettings,
        pixel_channels: int,
        normalization: Normalization,
        name: str = "max_attention",
    ):
        super().__init__(name=name, autocast=False)
        key, value = settings.key_channels, settings.value_channels
        self.depths = [key, key, value]
        self.updates_pixels = settings.pixel_update == "attention"
        self.center_qkv = attention_projection(settings, sum(self.depths), normalization, "center_qkv")
        self.center_attention = AttentionBranch(
            settings, settings.center_channels, normalization, name="center_attention"
        )
        if self.updates_pixels:
            self.pixel_qkv = attention_projection(settings, sum(self.depths), normalization, "pixel_qkv")
            self.pixel_attention = AttentionBranch(settings, pixel_channels, normalization, name="pixel_attention")
        else:
            self.pixel_kv = attention_projection(settings, key + value, normalization, "pixel_kv")

    def call(self, inputs: RuleInput, training=False) -> RuleOutput:
        pixels = flatten_pixels(inputs.pixels)
        query, key, value = tf.split(self.center_qkv(inputs.centers, training=training), self.depths, axis=-1)
        if self.updates_pixels:
            qkv = self.pixel_qkv(pixels, training=training)
            pixel_query, pixel_key, pixel_value = tf.split(qkv, self.depths, axis=-1)
        else:
            pixel_key, pixel_value = tf.split(self.pixel_kv(pixels, training=training), self.depths[1:], axis=-1)
        attended, to_pixels = attend_to_both(
            self.center_attention, query, (pixel_key, pixel_value), (key, value), training
        )
        if self.updates_pixels:
            update, to_centers = self.pixel_attention(pixel_query, key, value, training=training)
            assignment = tf.reduce_mean(to_centers, axis=1)
            update = unflatten_pixels(update, inputs.pixels)
        else:
            update, assignment = None, share_of_attention(to_pixels)
        return RuleOutput((attended,), update, unflatten_pixels(assignment, inputs.pixels))


def share_of_attention(to_pixels: tf.Tensor) -> tf.Tensor:
    """Attention of centers to pixels [B, heads, N, HW] -> [B, HW, N]: each center's share of what a pixel receives."""
    received = tf.transpose(tf.reduce_mean(to_pixels, axis=1), [0, 2, 1])
    return received / tf.reduce_sum(received, axis=-1, keepdims=True)
