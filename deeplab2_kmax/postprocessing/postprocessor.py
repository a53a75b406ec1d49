"""The post-processor of a config: model outputs in, panoptic, instance and semantic maps out."""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.postprocessing import segments
from deeplab2_kmax.postprocessing.maskwise import maskwise_maps
from deeplab2_kmax.postprocessing.pixelwise import pixelwise_maps
from deeplab2_kmax.postprocessing.settings import PostprocessingSettings
from deeplab2_kmax.protos import config_pb2


class Postprocessor:
    """Turns mask and class logits into maps, for any batch size."""

    def __init__(self, settings: PostprocessingSettings):
        self.settings = settings
        self._maps = tf.function(self._maps_of, autograph=False, reduce_retracing=True)

    def __call__(self, outputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The maps of a batch of images.

        Args:
            outputs: of the model; `pixel_space_mask_logits` float32 [B,h,w,N] and `transformer_class_logits` float32
                [B,N,C+1] are used. B may be unknown.

        Returns:
            At `settings.size`, [B,H,W] each:
            `panoptic_pred` int32, class id * label divisor + instance id (0 for stuff); void is
            ignore label * label divisor;
            `instance_pred` int32, the slot that has the pixel, from 1 (mask-wise: by descending confidence, and 1
            also where no slot has it);
            `semantic_pred` int32, the class id of the most probable slot, with no threshold at all;
            `instance_scores` float32 0..1, the largest mask probability;
            `semantic_scores` float32 0..1, the class probability of the slot that has the pixel.
            An image without any detected slot is void, with scores 0.
        """
        return self._maps(outputs["pixel_space_mask_logits"], outputs["transformer_class_logits"])

    def _maps_of(self, mask_logits: tf.Tensor, class_logits: tf.Tensor) -> dict[str, tf.Tensor]:
        settings = self.settings
        mask_logits = tf.cast(mask_logits, tf.float32)
        classes = segments.classify_slots(tf.cast(class_logits, tf.float32), settings)
        method = pixelwise_maps if settings.maskwise is None else maskwise_maps
        return method(mask_logits, classes, settings)


def build_postprocessor(config: config_pb2.ExperimentOptions) -> Postprocessor:
    """The post-processor of an experiment: mask-wise or pixel-wise, to `eval_dataset_options.crop_size`.

    Raises:
        ConfigError: no crop size, an unknown data set or an unknown post-processing.
    """
    return Postprocessor(PostprocessingSettings.from_options(config))
