"""ConvNeXt as a pixel encoder (Liu et al., "A ConvNet for the 2020s", CVPR 2022), padded as DeepLab2 pads it.

The original takes images whose sides are multiples of 32. Here sides are 32 k + 1, and patches have an even size, so
they cannot be centered on a pixel. Padding with zeros keeps the features of all strides over the same pixels all the
same: the stem's 4 x 4 patches begin one pixel before the pixel they stand for and end two pixels after it, the 2 x 2
patches of a downsampling begin at the pixel itself and end one pixel after it.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from deeplab2_kmax.model.layers.activations import activation
from deeplab2_kmax.model.layers.initializers import small_truncated_normal
from deeplab2_kmax.model.layers.layer_norm import LayerNorm
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.layers.precision import add_float32_weight
from deeplab2_kmax.model.layers.recomputation import RecomputableLayer
from deeplab2_kmax.model.layers.regularization import drop_path, linear_keep_prob
from deeplab2_kmax.protos import model_pb2
from deeplab2_kmax.wording import counted

# Factor of the residual branches in a new encoder: so small that a deep network starts almost as the identity.
_LAYER_SCALE = 1e-6
# Height and width of the depthwise kernels.
_DEPTHWISE_SIZE = 7
# Hidden channels of a block's MLP, as a multiple of its channels.
_EXPANSION = 4


@dataclasses.dataclass(frozen=True)
class ConvNeXtSettings:
    """Widths and depths; the defaults are ConvNeXt-T.

    Attributes:
        stage_filters: channels of the stages at strides 4, 8, 16 and 32.
        stage_blocks: number of blocks of these stages.
        keep_prob: probability that the last block's residual branch is kept in training.
    """

    stage_filters: tuple[int, ...] = (96, 192, 384, 768)
    stage_blocks: tuple[int, ...] = (3, 3, 9, 3)
    keep_prob: float = 1.0

    @classmethod
    def from_options(cls, options: model_pb2.ModelOptions.BackboneOptions) -> ConvNeXtSettings:
        """Reads the settings from the config's `model_options.backbone`."""
        return cls(tuple(options.stage_filters), tuple(options.stage_blocks), options.drop_path_keep_prob)


class ConvNeXt(tf.keras.layers.Layer):
    """Image [B, H, W, 3] -> {"stage1", "stage2": stride 4, "stage3": 8, "stage4": 16, "stage5": 32}, not activated.

    "stage1" is the output of the stem, which has stride 4 too.

    Args:
        settings: widths and depths.
        normalization: not used; all encoders take it.
    """

    activation = "gelu"

    def __init__(self, settings: ConvNeXtSettings, normalization: Normalization, name: str = "pixel_encoder"):
        del normalization  # Settings of batch norms; all normalizations here are layer norms.
        super().__init__(name=name)
        first, *others = settings.stage_filters
        self.patches = Patches(first, name="patches")
        self.downsamplings = [Downsampling(filters, name=f"downsampling_to_{filters}") for filters in others]
        last_block = max(sum(settings.stage_blocks) - 1, 1)
        self.block_groups = []
        before = 0
        for stage, (filters, count) in enumerate(zip(settings.stage_filters, settings.stage_blocks), start=2):
            self.block_groups.append(
                [
                    ConvNeXtBlock(
                        filters,
                        linear_keep_prob(settings.keep_prob, before + block, last_block),
                        name=f"stage{stage}_block{block + 1}",
                    )
                    for block in range(count)
                ]
            )
            before += count

    def call(self, image: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        x = self.patches(image)
        features = {"stage1": x}
        for stage, blocks in enumerate(self.block_groups, start=2):
            if stage > 2:
                x = self.downsamplings[stage - 3](x)
            for block in blocks:
                x = block(x, training=training)
            features[f"stage{stage}"] = x
        return features


class Patches(tf.keras.layers.Layer):
    """The stem, patches of 4 x 4 pixels and layer norm: [B, H, W, 3] -> [B, ceil(H / 4), ceil(W / 4), filters].

    Args:
        filters: output channels.
    """

    def __init__(self, filters: int, name: str | None = None):
        super().__init__(name=name)
        self.conv = PatchConv(filters, 4, outside=(1, 2), name="conv")
        self.layer_norm = LayerNorm(name="layer_norm")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.layer_norm(self.conv(x))


class Downsampling(tf.keras.layers.Layer):
    """Layer norm, then patches of 2 x 2 pixels: [B, H, W, C] -> [B, ceil(H / 2), ceil(W / 2), filters].

    Args:
        filters: output channels.
    """

    def __init__(self, filters: int, name: str | None = None):
        super().__init__(name=name)
        self.layer_norm = LayerNorm(name="layer_norm")
        self.conv = PatchConv(filters, 2, outside=(0, 1), name="conv")

    def build(self, input_shape):
        self.layer_norm.build(input_shape)
        self.conv.build(input_shape)
        super().build(input_shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        # DeepLab2 pads before the layer norm, which turns the zeros around the image into its beta. Here the padding
        # comes after whitening, which leaves zeros zero, and beta is absorbed by the bias, so both agree.
        kernel, bias = self.layer_norm.absorbed_by(self.conv.kernel, self.conv.bias)
        return self.conv.convolve(self.layer_norm.whiten(x), kernel, bias)


class PatchConv(tf.keras.layers.Layer):
    """Convolution, with bias, of patches of size x size pixels that do not overlap.

    Args:
        filters: output channels.
        size: height and width of a patch, and the stride.
        outside: how many zeros to add (before, after) the image, in height and in width.
    """

    def __init__(self, filters: int, size: int, outside: tuple[int, int], name: str | None = None):
        super().__init__(name=name)
        self.filters = filters
        self.size = size
        self.padding = [[0, 0], list(outside), list(outside), [0, 0]]

    def build(self, input_shape):
        shape = [self.size, self.size, input_shape[-1], self.filters]
        self.kernel = add_float32_weight(self, "kernel", shape, small_truncated_normal())
        self.bias = add_float32_weight(self, "bias", [self.filters], "zeros")
        super().build(input_shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.convolve(x, self.kernel, self.bias)

    def convolve(self, x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        """As `call`, with another kernel and bias, float32, such as ones that have absorbed a layer norm."""
        convolved = tf.nn.conv2d(x, tf.cast(kernel, x.dtype), self.size, self.padding)
        return tf.nn.bias_add(convolved, tf.cast(bias, x.dtype))


class ConvNeXtBlock(RecomputableLayer):
    """x + layer_scale * mlp(layer_norm(depthwise(x))): [B, H, W, C] -> [B, H, W, C].

    The affine part of the layer norm is absorbed by the first linear map of the MLP, layer scale by the second.

    Args:
        filters: C.
        keep_prob: probability that the residual branch is kept in training.

    Raises:
        ValueError: the input has another number of channels.
    """

    def __init__(self, filters: int, keep_prob: float = 1.0, name: str | None = None):
        super().__init__(name=name)
        self.filters = filters
        self.keep_prob = keep_prob
        self.activate = activation("gelu")
        self.depthwise = DepthwiseConv(filters, name="depthwise")
        self.layer_norm = LayerNorm(name="layer_norm")
        # These two layers are never called. They hold the float32 weights under the names of DeepLab2's checkpoints;
        # `call` combines the weights with layer norm and layer scale first.
        self.expansion, self.projection = (
            tf.keras.layers.Dense(units, kernel_initializer=small_truncated_normal(), dtype="float32", name=name)
            for units, name in ((_EXPANSION * filters, "expansion"), (filters, "projection"))
        )

    def build(self, input_shape):
        if input_shape[-1] != self.filters:
            raise ValueError(f"{self.name}: expected {counted(self.filters, 'channel')}, got {input_shape[-1]}")
        self.layer_norm.build([None, self.filters])
        self.expansion.build([None, self.filters])
        self.projection.build([None, _EXPANSION * self.filters])
        # The shape is that of DeepLab2's checkpoints.
        self.layer_scale = add_float32_weight(
            self, "layer_scale", [1, 1, 1, self.filters], tf.keras.initializers.Constant(_LAYER_SCALE)
        )
        super().build(input_shape)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        # Matrix products, because on CPUs TensorFlow fuses those with bias and GELU, but not 1x1 convolutions.
        pixels = tf.reshape(self.depthwise(x), [-1, self.filters])
        kernel, bias = self.layer_norm.absorbed_by(self.expansion.kernel, self.expansion.bias)
        hidden = self.activate(_product(self.layer_norm.whiten(pixels), kernel, bias), training)
        scale = tf.reshape(self.layer_scale, [-1])
        branch = _product(hidden, self.projection.kernel * scale, self.projection.bias * scale)
        return x + drop_path(tf.reshape(branch, tf.shape(x)), self.keep_prob, training)


def _product(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """x [rows, C] times kernel [C, D], plus bias [D], in the precision of x."""
    return tf.nn.bias_add(tf.matmul(x, tf.cast(kernel, x.dtype)), tf.cast(bias, x.dtype))


class DepthwiseConv(tf.keras.layers.Layer):
    """7x7 convolution of each channel with a kernel and a bias of its own: [B, H, W, C] -> [B, H, W, C].

    Args:
        filters: C.
    """

    def __init__(self, filters: int, name: str | None = None):
        super().__init__(name=name)
        self.filters = filters

    def build(self, input_shape):
        # DeepLab2 runs a convolution in C groups, whose kernel is [7, 7, 1, C]; checkpoints have this shape. The
        # depthwise operation used here computes the same from a kernel [7, 7, C, 1].
        shape = [_DEPTHWISE_SIZE, _DEPTHWISE_SIZE, 1, self.filters]
        self.kernel = self.add_weight("kernel", shape, initializer=small_truncated_normal())
        self.bias = self.add_weight("bias", [self.filters], initializer="zeros")
        super().build(input_shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        kernel = tf.reshape(self.kernel, [_DEPTHWISE_SIZE, _DEPTHWISE_SIZE, self.filters, 1])
        return tf.nn.bias_add(tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME"), self.bias)
