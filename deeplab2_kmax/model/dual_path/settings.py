"""What tells the networks on MaX-DeepLab's skeleton from each other, as plain values."""

from __future__ import annotations

import dataclasses

from deeplab2_kmax.model.pixel_encoders.residual_stages import ResidualSettings
from deeplab2_kmax.model.transformer_decoder import TransformerDecoderSettings
from deeplab2_kmax.protos import model_pb2

# Features of this stride pass through decoder layers of the configured width; those of half the stride through half.
_LAYER_STRIDE = 16


@dataclasses.dataclass(frozen=True)
class DualPathSettings:
    """Sizes of the network; the defaults are MaX-DeepLab-S.

    Attributes:
        residual: what all residual blocks share.
        layer: what all decoder layers share; its channels are those at stride 16.
        stem: "inception", or "conv3", one 3x3 convolution.
        stem_channels: channels of the stem's first convolution.
        first_stage_blocks: blocks at stride 2, before all other stages; 0: none.
        stage_filters: a quarter of the channels of the stages that nominally end at strides 4, 8, 16 and 32.
        stage_blocks: number of blocks of these stages.
        layers_beyond_stride: a decoder layer follows every block that ends at this nominal stride or a larger one.
        backbone_stacks: how often the backbone, after its encoder, decodes to the mask stride and encodes again.
        backbone_decoder_blocks: residual blocks at each stride of that.
        extra_stacks: how often the same is done by layers that are not pretrained, before the final decoding.
        extra_blocks: residual blocks of the extra stage and at each stride after it.
        mask_stride: stride of the masks.
    """

    residual: ResidualSettings = ResidualSettings(output_stride=16)
    layer: TransformerDecoderSettings = TransformerDecoderSettings(activation="relu", update_rule="max")
    stem: str = "inception"
    stem_channels: int = 64
    first_stage_blocks: int = 0
    stage_filters: tuple[int, ...] = (64, 128, 256, 512)
    stage_blocks: tuple[int, ...] = (3, 4, 6, 3)
    layers_beyond_stride: int = 32
    backbone_stacks: int = 0
    backbone_decoder_blocks: int = 1
    extra_stacks: int = 0
    extra_blocks: int = 1
    mask_stride: int = 4

    @classmethod
    def from_options(cls, options: model_pb2.ModelOptions) -> DualPathSettings:
        backbone = options.backbone
        residual = ResidualSettings(
            activation=ACTIVATION,
            output_stride=backbone.output_stride,
            convolution=backbone.convolution_block,
            axial_expansion=backbone.axial_expansion,
            keep_prob=backbone.drop_path_keep_prob,
            keep_schedule=backbone.drop_path_schedule,
            drop_beyond_stride=backbone.drop_path_beyond_stride,
        )
        layer = TransformerDecoderSettings.from_options(options.max_deeplab)
        return cls(
            residual=residual,
            layer=dataclasses.replace(layer, activation=ACTIVATION),
            stem=backbone.stem,
            stem_channels=backbone.stem_channels,
            first_stage_blocks=backbone.first_stage_blocks,
            stage_filters=tuple(backbone.stage_filters),
            stage_blocks=tuple(backbone.stage_blocks),
            layers_beyond_stride=backbone.decoder_layers_beyond_stride,
            backbone_stacks=backbone.backbone_decoder_stacks,
            backbone_decoder_blocks=backbone.backbone_decoder_blocks,
            extra_stacks=backbone.extra_decoder_stacks,
            extra_blocks=backbone.extra_decoder_blocks,
            mask_stride=options.max_deeplab.high_resolution_output_stride,
        )

    def layer_at(self, stride: int) -> TransformerDecoderSettings:
        """The decoder layer for features of `stride`; heads keep their number."""
        scaled = {
            name: getattr(self.layer, name) * stride // _LAYER_STRIDE
            for name in ("bottleneck_channels", "key_channels", "value_channels")
        }
        return dataclasses.replace(self.layer, **scaled)

    def decoder_filters(self, stride: int) -> int:
        """A quarter of the decoder's channels at `stride`: those of the encoder's last stage with that stride."""
        if stride == self.residual.output_stride:
            return self.stage_filters[-1]
        return self.stage_filters[stride.bit_length() - 3]

    def stack_strides(self) -> list[int]:
        """Strides of one stack: down from below the output stride to the mask stride, and back up."""
        strides = [self.residual.output_stride]
        while strides[-1] > self.mask_stride:
            strides.append(strides[-1] // 2)
        return strides[1:] + strides[-2::-1]

    def backbone_strides(self) -> list[int]:
        """Strides of the backbone decoder's stages, in order."""
        return self.stack_strides() * self.backbone_stacks

    def extra_strides(self) -> list[int]:
        """Strides of the extra decoder's stages, in order; the last is the mask stride."""
        down = self.stack_strides()
        return down * self.extra_stacks + down[: len(down) // 2]


# Of all activations on this skeleton.
ACTIVATION = "relu"
