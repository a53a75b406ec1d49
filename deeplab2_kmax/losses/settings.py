"""What the losses need to know, as plain values; the only file of this folder that reads protos."""

from __future__ import annotations

from dataclasses import dataclass

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.protos import config_pb2, trainer_pb2

VOID_OVERLAP = "void_overlap"
ONE = "one"


@dataclass(frozen=True)
class TermSettings:
    """One loss term: its factor in the total, and the fraction (0, 1] of pixels with the highest loss that counts."""

    weight: float
    top_k: float = 1.0


@dataclass(frozen=True)
class LossSettings:
    """Settings of MaskTransformerLoss. A term that is None is left out.

    thing_class_ids, stuff_class_ids: class ids of the data set, each ascending; classes of the model's class head are
        things first, then stuff, then void.
    ignore_label: class id of void pixels. num_classes: channels of the semantic head.
    pq_style, mask_id, instance_discrimination, semantic: the four losses. `pq_style.top_k` is not used.
    instance_sample_k: pixels drawn for the instance discrimination loss; 0: all pixels against mask means.
    instance_sample_temperature: above 1 the draw favours small masks, below 1 large ones.
    instance_temperature: divides the similarities of the instance discrimination loss.
    semantic_sample_k, semantic_sample_temperature: the same draw for the semantic loss; 0: all pixels.
    unmatched_slot_weight: VOID_OVERLAP or ONE, the weight of slots without a mask in the class term.
    positive_weight: share of matched slots in the class term, and factor of the dice term (alpha of the focal loss).
    mask_approximation: the loss of reference masks. mask_approximation_things_only: leaves stuff out of it.
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


def _term(options: trainer_pb2.LossOptions, name: str) -> TermSettings | None:
    if not options.HasField(name):
        return None
    single = getattr(options, name)
    if not 0.0 < single.top_k_percent <= 1.0:
        raise ConfigError(
            f"trainer_options.loss_options.{name}.top_k_percent: expected a fraction above 0 and up to 1, "
            f"came {single.top_k_percent:g}"
        )
    # A weight of 0 switches the term off; nothing is gained by computing it.
    return TermSettings(single.weight, single.top_k_percent) if single.weight else None


def from_config(config: config_pb2.ExperimentOptions) -> LossSettings:
    """Settings of an experiment.

    Raises:
      ConfigError: unknown data set, a top_k_percent outside (0, 1], or no loss term at all.
    """
    from deeplab2_kmax.datasets import load_dataset

    data = load_dataset(config.train_dataset_options.dataset)
    options = config.trainer_options.loss_options
    architecture = config.model_options.max_deeplab
    decoder = architecture.transformer_decoder
    by_overlap = options.unmatched_slot_weight == trainer_pb2.LossOptions.VOID_OVERLAP
    settings = LossSettings(
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
        semantic_sample_k=architecture.semantic_sample_k if architecture.sample_semantic_loss else 0,
        semantic_sample_temperature=architecture.semantic_sample_temperature,
        unmatched_slot_weight=VOID_OVERLAP if by_overlap else ONE,
        mask_approximation=_term(options, "mask_approximation_loss"),
        mask_approximation_things_only=options.mask_approximation_things_only,
        auxiliary_outputs=sum(decoder.num_blocks) if decoder.deep_supervision else 0,
    )
    if not any((settings.pq_style, settings.mask_id, settings.instance_discrimination, settings.semantic)):
        raise ConfigError(
            "trainer_options.loss_options: expected at least one of pq_style_loss, mask_id_cross_entropy_loss, "
            "instance_discrimination_loss and semantic_loss with a weight other than 0, came none"
        )
    return settings
