"""MaX-DeepLab's dual-path attention (Wang et al., CVPR 2021, section 3.2): softmax over space.

With queries q, keys k and values v of HW pixels (p) and N centers (c):

    center update    U_c = W(act(norm(softmax_{HW+N}(norm(q_c [k_p; k_c]^T)) [v_p; v_c])))
    pixel update     U_p = W(act(norm(softmax_N(norm(q_p k_c^T)) v_c)))

Centers attend to pixels and to each other in one softmax. Both updates start from the centers at the layer's input. The
paper calls the centers "memory", and so do DeepLab2's checkpoints.
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

# Far below what counts, and well within float32, where softmaxes over many pixels may reach 0.
_LEAST_ATTENTION = 1e-30


class MaxAttention(tf.keras.layers.Layer):
    """Dual-path attention.

    The assignment that it returns is the attention of pixels to centers, averaged over heads. Where pixels are not
    updated, it is made from the attention of centers to pixels, divided by its sum over the centers.

    Args:
        settings: sizes, and whether pixels are updated: `pixel_update` is "attention" or "none".
        pixel_channels: channels of the pixels that are updated.
        normalization: settings of the batch norms.
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

    def call(self, inputs: RuleInput, training: bool = False) -> RuleOutput:
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
    """Turns the attention of centers to pixels into an assignment of pixels to centers.

    Args:
        to_pixels: [B, heads, N, HW].

    Returns:
        [B, HW, N]: each center's share of the attention that a pixel receives. The shares sum to one over the centers.
        A pixel whose attention is too small for its type is shared evenly.
    """
    received = tf.transpose(tf.reduce_mean(to_pixels, axis=1), [0, 2, 1])
    received = tf.maximum(received, _LEAST_ATTENTION)
    return received / tf.reduce_sum(received, axis=-1, keepdims=True)
