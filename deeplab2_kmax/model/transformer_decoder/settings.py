"""Sizes and choices of the transformer decoder."""

from __future__ import annotations

import dataclasses

from deeplab2_kmax.protos import model_pb2


@dataclasses.dataclass(frozen=True)
class TransformerDecoderSettings:
    """What every decoder layer is made by, in a decoder of its own or inside the blocks of an encoder.

    Attributes:
        num_blocks: layers at strides 32, 16 and 8.
        num_centers: cluster centers, i.e. mask slots.
        center_channels: channels of a center.
        bottleneck_channels: channels to which pixels and centers are projected inside a layer.
        key_channels, value_channels: over all heads.
        num_heads: of the attention among centers and between centers and pixels.
        feed_forward_channels: hidden channels of the feed-forward network.
        keep_prob: probability that a residual branch is kept in training.
        activation: "gelu" (the kMaX skeleton) or "relu" (MaX-DeepLab's).
        update_rule: how centers and pixels learn of each other: "max", "cmt" or "kmax".
        deep_supervision: whether each layer predicts masks and classes of its own, to be supervised. k-means always
            does: its assignment is made from them.
        pixel_update: how pixels gather from centers: "none", "attention" (MaX), or "assignment" (CMT: by the soft
            assignment). k-means: always "none".

    The rest is CMT's alone, see docs/cmt.md:
        residual_assignment: the logits of the layer before are added to the assignment's.
        location_sensitive: centers have reference masks, and a coordinate convolution makes use of them in the pixel
            update, which has to be by "assignment".
        spatial_attention: centers attend to pixels too, beside gathering from their clusters; false: to centers only.
        cluster_reduction: a cluster's "sum" of pixel values, or their "mean" weighted by the assignment.
        reference_mask_bias: reference masks also weigh the assignment, by b log R with b learned.
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
    def from_options(cls, options: model_pb2.ModelOptions.MaXDeepLabOptions) -> TransformerDecoderSettings:
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
            update_rule=decoder.update_rule,
            deep_supervision=decoder.deep_supervision,
            pixel_update=decoder.pixel_update,
            residual_assignment=decoder.residual_assignment,
            location_sensitive=decoder.location_sensitive,
            spatial_attention=decoder.spatial_attention,
            cluster_reduction=decoder.cluster_reduction,
            reference_mask_bias=decoder.reference_mask_bias,
        )
