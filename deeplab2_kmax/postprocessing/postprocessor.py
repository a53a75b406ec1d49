"""The post-processor of a config: model outputs in, panoptic, instance and semantic maps out."""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.postprocessing import segments
from deeplab2_kmax.postprocessing.maskwise import maskwise_maps
from deeplab2_kmax.postprocessing.pixelwise import pixelwise_maps
from deeplab2_kmax.postprocessing.settings import PostprocessingSettings
from deeplab2_kmax.protos import config_pb2

# The outputs of the network that maps are made from.
LOGITS = ("pixel_space_mask_logits", "transformer_class_logits")


class Postprocessor:
    """Turns mask logits and class logits into maps, for any batch size.

    Args:
        settings: method, thresholds, and the size of the maps.
    """

    def __init__(self, settings: PostprocessingSettings) -> None:
        self.settings = settings
        # Run as a graph even if the caller runs eagerly, as its loops would be slow otherwise. With `reduce_retracing`
        # it is not traced again for batches of another size.
        self._maps = tf.function(self._maps_of, autograph=False, reduce_retracing=True)

    def __call__(self, outputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The maps of a batch of images.

        Args:
            outputs: of the model, of which `pixel_space_mask_logits` [B, h, w, N] and `transformer_class_logits`
                [B, N, C + 1] are used, in any float type. B may be unknown.

        Returns:
            Under DeepLab2's names, [B, H, W] each, at `settings.size`:
            `panoptic_pred` int32, class id * label divisor + instance id (0 for stuff); void is
            ignore label * label divisor;
            `instance_pred` int32, the number, from 1, of the slot that owns the pixel: mask-wise its place in the order
            of confidence (and 1 where no slot owns the pixel), pixel-wise its index + 1;
            `semantic_pred` int32, the class id of the most probable slot, whatever its probability;
            `instance_scores` float32 0..1, the largest mask probability;
            `semantic_scores` float32 0..1, the class probability of the slot that owns the pixel.
            An image without any detected slot is void, with scores 0.
        """
        return self._maps(*(outputs[name] for name in LOGITS))

    def _maps_of(self, mask_logits: tf.Tensor, class_logits: tf.Tensor) -> dict[str, tf.Tensor]:
        """`__call__` on tensors: what is traced."""
        settings = self.settings
        mask_logits = tf.cast(mask_logits, tf.float32)
        classes = segments.classify_slots(tf.cast(class_logits, tf.float32), settings)
        if settings.maskwise is None:
            return pixelwise_maps(mask_logits, classes, settings)
        return maskwise_maps(mask_logits, classes, settings, settings.maskwise)


def build_postprocessor(config: config_pb2.ExperimentOptions, portable: bool = False) -> Postprocessor:
    """The post-processor of an experiment, mask-wise or pixel-wise; its maps have `eval_dataset_options.crop_size`.

    Args:
        config: the experiment.
        portable: whether only operations are used that other runtimes than TensorFlow have as well.

    Raises:
        ConfigError: there is no crop size, or the data set or the post-processing is unknown.
    """
    return Postprocessor(PostprocessingSettings.from_options(config, portable))
