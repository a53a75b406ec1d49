"""Sizes and choices of the transformer decoder."""

from __future__ import annotations

import dataclasses

from deeplab2_kmax.protos import model_pb2


@dataclasses.dataclass(frozen=True)
class TransformerDecoderSettings:
    """Settings of decoder layers, which stand in a decoder of their own or between the blocks of an encoder.

    The fields from `residual_assignment` on are for the update rule "cmt" only; docs/cmt.md explains them.

    Attributes:
        num_blocks: number of layers at strides 32, 16 and 8 of the kMaX skeleton.
        num_centers: number of cluster centers, i.e. mask slots.
        center_channels: channels of a center.
        bottleneck_channels: channels to which pixels and centers are projected inside a layer.
        key_channels, value_channels: channels over all heads.
        num_heads: heads of the attention among centers and between centers and pixels.
        feed_forward_channels: hidden channels of the feed-forward network.
        keep_prob: probability that a residual branch is kept in training.
        activation: "gelu" (the kMaX skeleton) or "relu" (MaX-DeepLab's).
        update_rule: how centers and pixels are updated from each other: "max", "cmt" or "kmax".
        deep_supervision: whether each layer predicts masks and classes of its own, which are supervised. Always true
            for "kmax", which assigns pixels by them.
        pixel_update: how pixels are updated from centers: "none", by "attention" ("max"), or by the soft "assignment"
            ("cmt"). Always "none" for "kmax".
        residual_assignment: whether the logits of the layer before are added to those of the assignment.
        location_sensitive: whether centers have reference masks, which a coordinate convolution uses in the pixel
            update; the pixel update has to be by "assignment" then.
        spatial_attention: whether centers attend to pixels and centers, not to centers alone, beside the clustering.
        cluster_reduction: whether a cluster is the "sum" of pixel values, or their "mean", weighted by the assignment.
        reference_mask_bias: whether reference masks R also weigh the assignment, by b log R with a learned b.
    """

    num_blocks: tuple[int, ...] = (2, 2, 2)
    num_centers: int = 128
    center_channels: int = 256
    bottleneck_channels: int = 256
    key_channels: int = 128
    value_channels: int = 256
    num_heads: int = 8
    feed_forward_channels: int = 2048
    keep_prob: float = 1.0
    activation: str = "gelu"
    update_rule: str = "kmax"
    deep_supervision: bool = True
    pixel_update: str = "none"
    residual_assignment: bool = False
    location_sensitive: bool = False
    spatial_attention: bool = True
    cluster_reduction: str = "sum"
    reference_mask_bias: bool = False

    @classmethod
    def from_options(
        cls, options: model_pb2.ModelOptions.MaXDeepLabOptions, activation: str = "gelu"
    ) -> TransformerDecoderSettings:
        """Reads the settings from the config's `model_options.max_deeplab`; the skeleton gives the activation."""
        decoder = options.transformer_decoder
        return cls(
            num_blocks=tuple(decoder.num_blocks),
            num_centers=options.num_mask_slots,
            center_channels=decoder.center_channels,
            bottleneck_channels=decoder.bottleneck_channels,
            key_channels=decoder.key_channels,
            value_channels=decoder.value_channels,
            num_heads=decoder.num_heads,
            feed_forward_channels=decoder.feed_forward_channels,
            keep_prob=options.transformer_decoder_drop_path_keep_prob,
            activation=activation,
            update_rule=decoder.update_rule,
            deep_supervision=decoder.deep_supervision,
            pixel_update=decoder.pixel_update,
            residual_assignment=decoder.residual_assignment,
            location_sensitive=decoder.location_sensitive,
            spatial_attention=decoder.spatial_attention,
            cluster_reduction=decoder.cluster_reduction,
            reference_mask_bias=decoder.reference_mask_bias,
        )
