"""Inference in several passes: the image at several sizes and mirrored, and the mean of what the network says of each.

DeepLab2 has one pass for mask transformers: it refuses flips and more than one scale, since mask slots are a set. Which
slot takes an object may change with the size of the image, and left and right change places in its mirror image.
So slots have to be aligned before their masks and classes can be averaged:

1. The *reference* is the pass whose scale is nearest to 1, not mirrored. Its grid of mask pixels is that of the result.
2. The mask logits of another pass are mirrored back and resized to that grid, with corners aligned. A softmax over the
   slots makes mask probabilities m_j, one over the classes, void among them, class probabilities p_j.
3. The similarity of the reference's slot i and its slot j is dice(m_i, m_j) * sum over classes of p_i p_j, as
   MaX-DeepLab compares masks with truth. The one-to-one assignment with the largest sum says which j belongs to each i.
4. Mask probabilities and class probabilities of slots that belong together are averaged over the passes, all of which
   weigh the same. The outputs hold their logarithms, of which a softmax makes the means again.

Since every slot of a pass is used once, the mean mask probabilities of a pixel sum to 1, as those of each pass do.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import tensorflow as tf

from deeplab2_kmax.losses.matching import match
from deeplab2_kmax.model.layers.resize import resize_bilinear
from deeplab2_kmax.protos import evaluator_pb2

_MASKS, _CLASSES = "pixel_space_mask_logits", "transformer_class_logits"
# Keeps the logarithm of a probability, and dice of empty masks, finite.
_EPSILON = 1e-30


@dataclasses.dataclass(frozen=True)
class PassSettings:
    """The passes of inference.

    Attributes:
        scales: factors on the size of the network's input, one pass for each.
        mirrored: whether there is another pass for each scale, of the mirror image.
    """

    scales: tuple[float, ...] = (1.0,)
    mirrored: bool = False

    @classmethod
    def from_options(cls, options: evaluator_pb2.EvaluatorOptions) -> PassSettings:
        """The passes of a config's `evaluator_options`."""
        return cls(tuple(options.eval_scales) or (1.0,), options.add_flipped_images)

    @property
    def is_plain(self) -> bool:
        """Whether there is a single pass, of the image as it is."""
        return self.scales == (1.0,) and not self.mirrored


class AveragedPasses(tf.Module):
    """A network that is run in several passes.

    Args:
        network: `network(images, training=False)` -> outputs, from `build_model`.
        settings: the passes.
    """

    def __init__(self, network: tf.Module, settings: PassSettings) -> None:
        super().__init__()
        self._network: Callable = network
        # A stable sort: of scales that are equally far from 1, the first one named comes first.
        self._scales = sorted(settings.scales, key=lambda scale: abs(math.log(scale)))
        self._mirrored = settings.mirrored

    def __call__(self, images: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """The outputs of the network under the same names.

        With a single pass they are what the network says of the resized image, as in DeepLab2, at the sizes that belong
        to it. If labels could not be brought to these sizes by a whole stride, and losses not be computed (where
        DeepLab2 ends with an error), maps are resized to those of scale 1.

        Args:
            images: float32 [B, H, W, 3] in 0..255; H and W have to be known.
            training: has to be False.

        Returns:
            Masks and classes are averaged; `pixel_space_normalized_feature` and `semantic_logits`, which only losses
            use in inference, are those of the reference.
        """
        if training:
            raise ValueError("AveragedPasses: expected training=False, as passes are for inference, got True")
        outputs = self._pass(images, self._scales[0], False)
        passes = [(scale, mirrored) for scale in self._scales for mirrored in (False, True)[: 1 + self._mirrored]]
        if len(passes) == 1:
            return outputs
        masks, classes = tf.nn.softmax(outputs[_MASKS]), tf.nn.softmax(outputs[_CLASSES])
        mask_sum, class_sum = masks, classes
        for scale, mirrored in passes[1:]:
            found = self._pass(images, scale, mirrored)
            other_masks = tf.nn.softmax(resize_bilinear(found[_MASKS], tuple(masks.shape[1:3])))
            other_classes = tf.nn.softmax(found[_CLASSES])
            slots = aligned_slots(masks, classes, other_masks, other_classes)
            mask_sum += tf.gather(other_masks, slots, axis=3, batch_dims=1)
            class_sum += tf.gather(other_classes, slots, axis=1, batch_dims=1)
        for name, total in ((_MASKS, mask_sum), (_CLASSES, class_sum)):
            outputs[name] = tf.math.log(tf.maximum(total / len(passes), _EPSILON))
        return outputs

    def _pass(self, images: tf.Tensor, scale: float, mirrored: bool) -> dict[str, tf.Tensor]:
        """The outputs of one pass, with masks mirrored back."""
        height, width = images.shape[1:3]
        scaled = resize_bilinear(images, scaled_size(height, width, scale)) if scale != 1.0 else images
        outputs = dict(self._network(tf.reverse(scaled, [2]) if mirrored else scaled, training=False))
        if mirrored:
            outputs[_MASKS] = tf.reverse(outputs[_MASKS], [2])
        return {
            name: _on_whole_stride(values, scaled.shape[1:3], (height, width)) if values.shape.rank == 4 else values
            for name, values in outputs.items()
        }


def in_passes(network: tf.Module, options: evaluator_pb2.EvaluatorOptions) -> Callable:
    """A network as a config's `evaluator_options` say how to run it: itself, where there is a single plain pass."""
    settings = PassSettings.from_options(options)
    return network if settings.is_plain else AveragedPasses(network, settings)


def scaled_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """The size of a scaled image, rounded down as in DeepLab2: at 0.5 and 2, stride * k + 1 stays of that form."""
    return int((height - 1.0) * scale + 1.0), int((width - 1.0) * scale + 1.0)


def _on_whole_stride(values: tf.Tensor, scaled: tuple[int, int], size: tuple[int, int]) -> tf.Tensor:
    """Maps [B, h, w, C] of an image of size `scaled`, resized where labels of `size` have no whole stride to theirs."""
    strides = {(full - 1) / max(1, side - 1) for full, side in zip(size, values.shape[1:3])}
    if len(strides) == 1 and min(strides).is_integer() and min(strides) >= 1:
        return values
    stride = max(1, round((scaled[0] - 1) / max(1, values.shape[1] - 1)))
    return resize_bilinear(values, tuple((full - 1) // stride + 1 for full in size))


def aligned_slots(masks: tf.Tensor, classes: tf.Tensor, other_masks: tf.Tensor, other_classes: tf.Tensor) -> tf.Tensor:
    """The slot of another pass that belongs to each slot of the reference.

    Args:
        masks: float32 [B, h, w, N], mask probabilities of the reference.
        classes: float32 [B, N, C], its class probabilities.
        other_masks: those of the other pass, of the same shape.
        other_classes: those of the other pass, of the same shape.

    Returns:
        int32 [B, N], each of 0..N-1 once.
    """
    slots = masks.shape[-1]
    flat, other_flat = (tf.reshape(each, [-1, each.shape[1] * each.shape[2], slots]) for each in (masks, other_masks))
    areas = tf.reduce_sum(flat, 1)[:, :, tf.newaxis] + tf.reduce_sum(other_flat, 1)[:, tf.newaxis, :]
    dice = 2.0 * tf.matmul(flat, other_flat, transpose_a=True) / tf.maximum(areas, _EPSILON)
    similarity = dice * tf.matmul(classes, other_classes, transpose_b=True)
    # Within the graph, so that an exported network aligns its slots as well.
    return match(-similarity, tf.ones(tf.shape(similarity)[:2], tf.bool), "xla")
