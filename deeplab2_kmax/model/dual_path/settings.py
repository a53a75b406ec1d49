"""Settings of the networks on MaX-DeepLab's skeleton: everything in which MaX-S, MaX-L and CMT-DeepLab differ."""

from __future__ import annotations

import dataclasses

from deeplab2_kmax.model.pixel_encoders.residual_stages import ResidualSettings
from deeplab2_kmax.model.transformer_decoder import TransformerDecoderSettings
from deeplab2_kmax.protos import model_pb2

# Of all layers on this skeleton.
ACTIVATION = "relu"
# The configured widths of decoder layers are meant for this stride. At half the stride layers have half the widths.
_LAYER_STRIDE = 16


@dataclasses.dataclass(frozen=True)
class DualPathSettings:
    """Sizes of the network; the defaults are MaX-DeepLab-S.

    Attributes:
        residual: what all residual blocks share.
        layer: what all decoder layers share; its channels are those at stride 16.
        stem: "inception", or "conv3": one 3x3 convolution.
        stem_channels: channels of the stem's first convolution.
        first_stage_blocks: number of blocks at stride 2, before all other stages; 0: none.
        stage_filters: a quarter of the channels of the stages that nominally end at strides 4, 8, 16 and 32.
        stage_blocks: number of blocks of these stages.
        layers_beyond_stride: a decoder layer follows every block that ends at this nominal stride or a larger one; 0:
            there are none.
        backbone_stacks: how often the backbone goes to the mask stride and back after its encoder.
        backbone_decoder_blocks: number of residual blocks at each stride of these stacks.
        extra_stacks: how often the extra decoder, which is not pretrained, does the same before it ends at the mask
            stride.
        extra_blocks: number of residual blocks of the extra stage and at each stride after it.
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
        """Reads the settings from the config's `model_options`."""
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
        return cls(
            residual=residual,
            layer=TransformerDecoderSettings.from_options(options.max_deeplab, ACTIVATION),
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
        """Settings of the decoder layers on features of `stride`. The number of heads is the same at all strides."""
        scaled = {
            name: getattr(self.layer, name) * stride // _LAYER_STRIDE
            for name in ("bottleneck_channels", "key_channels", "value_channels")
        }
        return dataclasses.replace(self.layer, **scaled)

    def decoder_filters(self, stride: int) -> int:
        """A quarter of the decoder's channels at `stride`: as many as the encoder's last stage with that stride has."""
        # With output stride 16 the encoder has two stages at stride 16, of which the second counts.
        if stride == self.residual.output_stride:
            return self.stage_filters[-1]
        # Stride 4 (bit length 3) is the first stage.
        return self.stage_filters[stride.bit_length() - 3]

    def stack_strides(self) -> list[int]:
        """Strides of one stack, from half the output stride to the mask stride and back: e.g. [8, 4, 8, 16]."""
        strides = [self.residual.output_stride]
        while strides[-1] > self.mask_stride:
            strides.append(strides[-1] // 2)
        return strides[1:] + strides[-2::-1]

    def backbone_strides(self) -> list[int]:
        """Strides of the backbone decoder's stages, in order."""
        return self.stack_strides() * self.backbone_stacks

    def extra_strides(self) -> list[int]:
        """Strides of the extra decoder's stages, in order; the last is the mask stride."""
        stack = self.stack_strides()
        return stack * self.extra_stacks + stack[: len(stack) // 2]
