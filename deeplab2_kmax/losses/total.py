"""The loss of a mask transformer: all terms of the final output and of the auxiliary outputs, and their sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.losses.instance_discrimination import instance_discrimination_loss
from deeplab2_kmax.losses.mask_approximation import mask_approximation_loss
from deeplab2_kmax.losses.mask_id import MaskStatistics, mask_id_cross_entropy, mask_statistics
from deeplab2_kmax.losses.matching import resolve_backend
from deeplab2_kmax.losses.pq_style import class_term, mask_dice_term
from deeplab2_kmax.losses.semantic import semantic_loss
from deeplab2_kmax.losses.settings import LossSettings
from deeplab2_kmax.losses.slots import SlotTargets, match_slots
from deeplab2_kmax.losses.targets import GroundTruthMasks, ground_truth_masks
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.wording import counted

# Keys of the model's outputs, as in DeepLab2.
MASK_LOGITS = "pixel_space_mask_logits"
FEATURE = "pixel_space_normalized_feature"
CLASS_LOGITS = "transformer_class_logits"
SEMANTIC_LOGITS = "semantic_logits"
AUXILIARY_OUTPUTS = "auxiliary_outputs_pred"
REFERENCE_MASKS = "reference_masks"

# Names of the terms, as in DeepLab2.
CLASS_TERM = "pq_style_loss_class_term"
DICE_TERM = "pq_style_loss_mask_dice_term"
MASK_ID = "mask_id_cross_entropy_loss"
INSTANCE_DISCRIMINATION = "instance_discrimination_loss"
SEMANTIC = "semantic_loss"
MASK_APPROXIMATION = "mask_approximation_loss"
TOTAL = "total_loss"


class MaskTransformerLoss:
    """Computes the loss terms of DeepLab2 under DeepLab2's names. It has no variables and keeps no state.

    Args:
        settings: which terms there are, with their weights.
        matching_backend: see `matching.match`; with "xla" the whole loss can be compiled (`jit_compile=True`).
    """

    def __init__(self, settings: LossSettings, matching_backend: str = "auto") -> None:
        self.settings = settings
        self.matching_backend = matching_backend

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the terms in training, `total_loss` last."""
        return self.names_for(self.settings.auxiliary_outputs, reference_masks=True)

    def names_for(self, auxiliary_outputs: int, reference_masks: bool = False) -> tuple[str, ...]:
        """The names of the terms that a call returns, `total_loss` last.

        Args:
            auxiliary_outputs: number of auxiliary outputs that the call gets (in evaluation 0).
            reference_masks: whether the call gets reference masks (in evaluation it does not).
        """
        terms = [prefix + name for prefix in _prefixes(1 + auxiliary_outputs) for name in self._output_terms()]
        if self.settings.mask_approximation and reference_masks:
            terms.append(MASK_APPROXIMATION)
        return (*terms, *([SEMANTIC] if self.settings.semantic else []), TOTAL)

    # AutoGraph turns Python conditions on tensors into graph operations. There are none here, and converting all this
    # code would take most of the time that tracing takes.
    @tf.autograph.experimental.do_not_convert
    def __call__(self, targets: Mapping[str, tf.Tensor], outputs: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """The losses of each image, with the weights of the terms applied.

        Args:
            targets: `semantic_gt` and `thing_id_mask_gt` int32 [B, H, W], `thing_id_class_gt` [B, T], and for the
                semantic loss `semantic_loss_weight` float32 [B, H, W]. H and W must be static, B need not be.
            outputs: of the model, in any float type. Auxiliary outputs and reference masks are used if
                `auxiliary_outputs_pred` and `reference_masks` are among them.

        Returns:
            float32 [B] for each name of `names_for`. Predictions that are not finite give losses that are not finite,
            so that a run that diverges is noticed.

        Raises:
            ConfigError: the sizes of labels and outputs do not fit, or the classes of the heads are not those of the
                data set.
        """
        losses: dict[str, tf.Tensor] = {}
        settings, masks = self.settings, None
        has_mask_terms = bool(self._output_terms() or settings.mask_approximation)
        if has_mask_terms or (settings.semantic and settings.semantic_sample_k > 0):
            # XLA wants static shapes; elsewhere padding is cut off, which is faster.
            crop_masks = resolve_backend(self.matching_backend) == "host"
            masks = ground_truth_masks(targets, outputs[MASK_LOGITS].shape[1:3], settings, crop_masks)
        if masks is not None and has_mask_terms:
            final = {name: outputs[name] for name in (MASK_LOGITS, FEATURE, CLASS_LOGITS)}
            self._check_classes(final[CLASS_LOGITS])
            all_outputs = [final, *(outputs.get(AUXILIARY_OUTPUTS) or ())]
            losses.update(self._losses_of_outputs(all_outputs, masks, outputs.get(REFERENCE_MASKS)))
        if settings.semantic:
            # Models may compute in bfloat16 or float16. Losses are always computed in float32: sums over thousands of
            # pixels need its precision.
            logits = tf.cast(outputs[SEMANTIC_LOGITS], tf.float32)
            losses[SEMANTIC] = semantic_loss(targets, logits, masks, settings)
        losses[TOTAL] = tf.add_n(list(losses.values()))
        return losses

    def _output_terms(self) -> list[str]:
        """The names of the terms that every output has, auxiliary ones included."""
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
                f"{CLASS_LOGITS}: expected {counted(expected, 'channel')} (things, stuff and void of the data set), "
                f"got {class_logits.shape[2]}; is the model made for another data set?"
            )

    def _losses_of_outputs(
        self,
        all_outputs: Sequence[Mapping[str, tf.Tensor]],
        masks: GroundTruthMasks,
        reference_masks: Sequence[tf.Tensor] | None,
    ) -> dict[str, tf.Tensor]:
        """The terms of all outputs, of which the final one comes first and the auxiliary ones follow.

        Tensors with an entry for every pixel are worked on one output at a time, to save memory. Those without pixels
        are small: they are stacked and worked on for all outputs at once, which keeps the graph small.
        """
        settings = self.settings
        terms: dict[str, tf.Tensor] = {}
        approximated = reference_masks if settings.mask_approximation else None
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
        losses = {
            prefix + name: loss
            for name, of_outputs in terms.items()
            for prefix, loss in zip(_prefixes(len(all_outputs)), tf.unstack(of_outputs, num=len(all_outputs)))
        }
        if approximated:
            size = all_outputs[0][MASK_LOGITS].shape[1:3]
            losses[MASK_APPROXIMATION] = mask_approximation_loss(approximated, slots, size, settings)
        return losses

    def _slots_and_statistics(
        self, all_outputs: Sequence[Mapping[str, tf.Tensor]], class_logits: tf.Tensor, masks: GroundTruthMasks
    ) -> tuple[SlotTargets, MaskStatistics]:
        """The matching of the final output, whose class logits are given, and the statistics of all outputs stacked."""
        slots: SlotTargets | None = None
        statistics = []
        for output in all_outputs:
            mask_logits = _pixels_in_a_row(output[MASK_LOGITS])
            # Without a gradient: `mask_statistics` has one of its own.
            log_probabilities = tf.nn.log_softmax(tf.stop_gradient(mask_logits))
            # Only the final output is matched. The auxiliary outputs learn the same slots, as in DeepLab2: a slot then
            # stands for the same mask in all layers, and there is one assignment to solve rather than seven.
            if slots is None:
                slots = match_slots(masks, tf.exp(log_probabilities), class_logits, self.matching_backend)
            statistics.append(mask_statistics(mask_logits, log_probabilities, slots))
        assert slots is not None  # There is always a final output.
        return slots, MaskStatistics(*(tf.stack(values) for values in zip(*statistics)))


def _prefixes(outputs: int) -> list[str]:
    """What the names of the terms of each output begin with: nothing for the final output, which comes first."""
    return ["", *(f"aux_{i}" for i in range(outputs - 1))]


def _pixels_in_a_row(maps: tf.Tensor) -> tf.Tensor:
    """Maps [B, h, w, C] of any float type as float32 [B, h * w, C]."""
    height, width, channels = maps.shape[1:]
    return tf.reshape(tf.cast(maps, tf.float32), [-1, height * width, channels])


def build_loss(config: config_pb2.ExperimentOptions, matching_backend: str = "auto") -> MaskTransformerLoss:
    """The loss of an experiment.

    Args:
        config: the experiment.
        matching_backend: see `matching.match`.

    Raises:
        ConfigError: the data set is unknown, or loss options make no sense.
    """
    return MaskTransformerLoss(LossSettings.from_options(config), matching_backend)
