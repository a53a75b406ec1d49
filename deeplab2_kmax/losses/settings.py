"""The settings of the losses, as plain values; the only file of this folder that reads protos."""

from __future__ import annotations

from dataclasses import dataclass

from deeplab2_kmax.config.checks import training_loss_problems
from deeplab2_kmax.config.problems import refuse
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.protos import config_pb2, trainer_pb2

VOID_OVERLAP = "void_overlap"
ONE = "one"


@dataclass(frozen=True)
class TermSettings:
    """One loss term.

    Attributes:
        weight: its factor in the total loss.
        top_k: the fraction of pixels, in (0, 1], that counts: those with the highest loss.
    """

    weight: float
    top_k: float = 1.0


@dataclass(frozen=True)
class LossSettings:
    """Settings of `MaskTransformerLoss`. A term that is None is left out.

    Attributes:
        thing_class_ids: class ids of the data set's things, ascending. The model's class head has things first, then
            stuff, then void.
        stuff_class_ids: the same for stuff.
        ignore_label: class id of void pixels.
        num_classes: channels of the semantic head.
        pq_style: the PQ-style loss, of which `top_k` is not used.
        mask_id: the cross-entropy over mask ids.
        instance_discrimination: the contrastive loss between pixels and masks.
        semantic: the loss of the semantic head.
        instance_sample_k: pixels drawn for the instance discrimination loss; 0: all pixels against mask means.
        instance_sample_temperature: above 1 the draw favors small masks, below 1 large ones.
        instance_temperature: divides the similarities of the instance discrimination loss. No config field sets it.
        semantic_sample_k: pixels drawn for the semantic loss in the same way; 0: all pixels.
        semantic_sample_temperature: as `instance_sample_temperature`.
        unmatched_slot_weight: VOID_OVERLAP or ONE: the weight, in the class term, of slots that match no mask.
        positive_weight: share of matched slots in the class term, and factor of the dice term (the focal loss's alpha).
            No config field sets it.
        mask_approximation: the loss of reference masks.
        mask_approximation_things_only: leaves stuff out of it.
        auxiliary_outputs: how many auxiliary outputs the model gives in training.
    """

    thing_class_ids: tuple[int, ...]
    stuff_class_ids: tuple[int, ...]
    ignore_label: int
    num_classes: int
    pq_style: TermSettings | None = None
    mask_id: TermSettings | None = None
    instance_discrimination: TermSettings | None = None
    semantic: TermSettings | None = None
    instance_sample_k: int = 0
    instance_sample_temperature: float = 0.6
    instance_temperature: float = 0.3
    semantic_sample_k: int = 0
    semantic_sample_temperature: float = 1.0
    unmatched_slot_weight: str = VOID_OVERLAP
    positive_weight: float = 0.75
    mask_approximation: TermSettings | None = None
    mask_approximation_things_only: bool = False
    auxiliary_outputs: int = 0

    @classmethod
    def from_options(cls, config: config_pb2.ExperimentOptions) -> LossSettings:
        """The settings of an experiment: of its losses, its model and its training data.

        Raises:
            ConfigError: an unknown data set, loss options that contradict themselves, or no loss term at all.
        """
        data = load_dataset(config.train_dataset_options.dataset)
        options = config.trainer_options.loss_options
        refuse(training_loss_problems(options))
        architecture = config.model_options.max_deeplab
        decoder = architecture.transformer_decoder
        by_overlap = options.unmatched_slot_weight == trainer_pb2.LossOptions.VOID_OVERLAP
        return cls(
            thing_class_ids=tuple(data.thing_class_ids),
            stuff_class_ids=tuple(data.stuff_class_ids),
            ignore_label=data.ignore_label,
            num_classes=data.num_classes,
            pq_style=_term(options, "pq_style_loss"),
            mask_id=_term(options, "mask_id_cross_entropy_loss"),
            instance_discrimination=_term(options, "instance_discrimination_loss"),
            semantic=_term(options, "semantic_loss"),
            instance_sample_k=architecture.instance_discrimination_sample_k,
            instance_sample_temperature=architecture.instance_discrimination_sample_temperature,
            # DeepLab2 reads semantic_sample_k and then uses all pixels; so do we unless told otherwise.
            semantic_sample_k=architecture.semantic_sample_k if architecture.sample_semantic_loss else 0,
            semantic_sample_temperature=architecture.semantic_sample_temperature,
            unmatched_slot_weight=VOID_OVERLAP if by_overlap else ONE,
            mask_approximation=_term(options, "mask_approximation_loss"),
            mask_approximation_things_only=options.mask_approximation_things_only,
            auxiliary_outputs=sum(decoder.num_blocks) if decoder.deep_supervision else 0,
        )


def _term(options: trainer_pb2.LossOptions, name: str) -> TermSettings | None:
    """One term of the options; None where it is not asked for."""
    term: trainer_pb2.LossOptions.SingleLossOptions = getattr(options, name)
    # A weight of 0 switches the term off: it is not worth computing.
    return TermSettings(term.weight, term.top_k_percent) if options.HasField(name) and term.weight else None
