"""The loss of a mask transformer: all terms of the final and the auxiliary outputs, and their sum."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.losses.instance_discrimination import instance_discrimination_loss
from deeplab2_kmax.losses.mask_approximation import mask_approximation_loss
from deeplab2_kmax.losses.mask_id import MaskStatistics, mask_id_cross_entropy, mask_statistics
from deeplab2_kmax.losses.matching import resolve_backend
from deeplab2_kmax.losses.pq_style import class_term, mask_dice_term
from deeplab2_kmax.losses.semantic import semantic_loss
from deeplab2_kmax.losses.settings import LossSettings, from_config
from deeplab2_kmax.losses.slots import SlotTargets, match_slots
from deeplab2_kmax.losses.targets import ground_truth_masks
from deeplab2_kmax.protos import config_pb2

MASK_LOGITS = "pixel_space_mask_logits"
FEATURE = "pixel_space_normalized_feature"
CLASS_LOGITS = "transformer_class_logits"
SEMANTIC_LOGITS = "semantic_logits"
AUXILIARY_OUTPUTS = "auxiliary_outputs_pred"
REFERENCE_MASKS = "reference_masks"

CLASS_TERM = "pq_style_loss_class_term"
DICE_TERM = "pq_style_loss_mask_dice_term"
MASK_ID = "mask_id_cross_entropy_loss"
INSTANCE_DISCRIMINATION = "instance_discrimination_loss"
SEMANTIC = "semantic_loss"
MASK_APPROXIMATION = "mask_approximation_loss"
TOTAL = "total_loss"


class MaskTransformerLoss:
    """Computes DeepLab2's loss terms, by DeepLab2's names; calling it has no state and creates no variables."""

    def __init__(self, settings: LossSettings, matching_backend: str = "auto"):
        """matching_backend: see `matching.match`; "xla" makes the whole loss compile with `jit_compile=True`."""
        self.settings = settings
        self.matching_backend = matching_backend

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the terms in training, `total_loss` last."""
        return self.names_for(self.settings.auxiliary_outputs, reference_masks=True)

    def names_for(self, auxiliary_outputs: int, reference_masks: bool = False) -> tuple[str, ...]:
        """Names of the terms for outputs with so many auxiliary ones (evaluation: 0) and, or not, reference masks."""
        prefixes = ["", *(f"aux_{i}" for i in range(auxiliary_outputs))]
        terms = [prefix + name for prefix in prefixes for name in self._output_terms()]
        if self.settings.mask_approximation and reference_masks:
            terms.append(MASK_APPROXIMATION)
        return (*terms, *([SEMANTIC] if self.settings.semantic else []), TOTAL)

    # No Python condition here depends on a tensor; converting the code would take most of the tracing time.
    @tf.autograph.experimental.do_not_convert
    def __call__(self, targets: Mapping[str, tf.Tensor], outputs: Mapping[str, object]) -> dict[str, tf.Tensor]:
        """Losses per image, each term with its weight applied.

        targets: `semantic_gt`, `thing_id_mask_gt` [B, H, W] i32, `thing_id_class_gt` [B, T], and for the semantic loss
        `semantic_loss_weight` [B, H, W] f32. outputs: the model's, in any float type; auxiliary outputs and reference
        masks are used where `auxiliary_outputs_pred` and `reference_masks` are there. Heights and widths must be
        static, the batch need not.
        Returns {name: [B] f32} for `names_for(number of auxiliary outputs, reference masks or not)`. A prediction that
        is not finite gives a loss that is not finite; nothing is hidden.

        Raises:
          ConfigError: sizes of labels and outputs, or classes of heads and data set, do not fit.
        """
        losses: dict[str, tf.Tensor] = {}
        masks = None
        if self._output_terms() or self.settings.mask_approximation:
            final = {name: outputs[name] for name in (MASK_LOGITS, FEATURE, CLASS_LOGITS)}
            self._check_classes(final[CLASS_LOGITS])
            crop_masks = resolve_backend(self.matching_backend) == "host"
            masks = ground_truth_masks(targets, final[MASK_LOGITS].shape[1:3], self.settings, crop_masks)
            all_outputs = [final, *(outputs.get(AUXILIARY_OUTPUTS) or ())]
            losses.update(self._losses_of_outputs(all_outputs, masks, outputs.get(REFERENCE_MASKS)))
        if self.settings.semantic:
            logits = tf.cast(outputs[SEMANTIC_LOGITS], tf.float32)
            losses[SEMANTIC] = semantic_loss(targets, logits, masks, self.settings)
        losses[TOTAL] = tf.add_n(list(losses.values()))
        return losses

    def _output_terms(self) -> list[str]:
        settings = self.settings
        return [
            *([CLASS_TERM, DICE_TERM] if settings.pq_style else []),
            *([MASK_ID] if settings.mask_id else []),
            *([INSTANCE_DISCRIMINATION] if settings.instance_discrimination else []),
        ]

    def _check_classes(self, class_logits: tf.Tensor) -> None:
        expected = len(self.settings.thing_class_ids) + len(self.settings.stuff_class_ids) + 1
        if class_logits.shape[2] != expected:
            raise ConfigError(
                f"{CLASS_LOGITS}: expected {expected} channels (things, stuff and void of the data set), "
                f"came {class_logits.shape[2]}"
            )

    def _losses_of_outputs(self, all_outputs, masks, reference_masks) -> dict[str, tf.Tensor]:
        """Terms of the final output, which comes first, and the auxiliary ones.

        What has all pixels is worked on output by output; the small rest is stacked, which makes for a small graph.
        """
        settings, terms = self.settings, {}
        approximated = settings.mask_approximation and reference_masks
        if settings.pq_style or settings.mask_id or approximated:
            class_logits = tf.stack([tf.cast(output[CLASS_LOGITS], tf.float32) for output in all_outputs])
            slots, statistics = self._slots_and_statistics(all_outputs, class_logits[0], masks)
        if settings.pq_style:
            terms[CLASS_TERM] = class_term(class_logits, slots, settings)
            terms[DICE_TERM] = mask_dice_term(statistics, slots, settings)
        if settings.mask_id:
            terms[MASK_ID] = mask_id_cross_entropy(statistics, masks, settings.mask_id)
        if settings.instance_discrimination:
            features = [_pixels_in_a_row(output[FEATURE]) for output in all_outputs]
            terms[INSTANCE_DISCRIMINATION] = instance_discrimination_loss(features, masks, settings)
        prefixes = ["", *(f"aux_{i}" for i in range(len(all_outputs) - 1))]
        losses = {
            prefix + name: loss
            for name, of_outputs in terms.items()
            for prefix, loss in zip(prefixes, tf.unstack(of_outputs, num=len(all_outputs)))
        }
        if approximated:
            size = all_outputs[0][MASK_LOGITS].shape[1:3]
            losses[MASK_APPROXIMATION] = mask_approximation_loss(reference_masks, slots, size, settings)
        return losses

    def _slots_and_statistics(self, all_outputs, class_logits, masks) -> tuple[SlotTargets, MaskStatistics]:
        slots, statistics = None, []
        for output in all_outputs:
            mask_logits = _pixels_in_a_row(output[MASK_LOGITS])
            log_probabilities = tf.nn.log_softmax(tf.stop_gradient(mask_logits))
            # The final output is matched; the auxiliary ones after it learn the same slots.
            if slots is None:
                slots = match_slots(masks, tf.exp(log_probabilities), class_logits, self.matching_backend)
            statistics.append(mask_statistics(mask_logits, log_probabilities, slots))
        return slots, MaskStatistics(*(tf.stack(values) for values in zip(*statistics)))


def _pixels_in_a_row(maps: tf.Tensor) -> tf.Tensor:
    """[B, h, w, C] of any float type -> [B, h * w, C] f32."""
    height, width, channels = maps.shape[1:]
    return tf.reshape(tf.cast(maps, tf.float32), [-1, height * width, channels])


def build_loss(config: config_pb2.ExperimentOptions, matching_backend: str = "auto") -> MaskTransformerLoss:
    """The loss of an experiment.

    Raises:
      ConfigError: unknown data set, or loss options that make no sense.
    """
    return MaskTransformerLoss(from_config(config), matching_backend)
