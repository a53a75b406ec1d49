"""What post-processing needs to know, as plain values."""

from __future__ import annotations

import dataclasses

from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.protos import config_pb2

METHODS = ("pixelwise", "maskwise")


@dataclasses.dataclass(frozen=True)
class MaskwiseSettings:
    """Options of mask-wise post-processing only.

    Attributes:
        thing_confidence: lowest class probability, 0..1, with which a slot of a thing class is painted.
        stuff_confidence: the same for stuff classes.
        free_fraction: a mask is painted only if more than this fraction of its pixels is still free at its turn.
        class_weight: masks are painted by descending class_confidence ** class_weight * mask_confidence ** mask_weight.
        mask_weight: see `class_weight`.
    """

    thing_confidence: float = 0.7
    stuff_confidence: float = 0.7
    free_fraction: float = 0.5
    class_weight: float = 1.0
    mask_weight: float = 0.0


@dataclasses.dataclass(frozen=True)
class PostprocessingSettings:
    """Options of post-processing.

    Attributes:
        size: height and width of the maps, in pixels.
        index_to_class_id: class id of each channel of the class logits but the last (void); things come first.
        num_thing_classes: how many of them are things.
        ignore_label: class id of void.
        label_divisor: panoptic id = class id * label_divisor + instance id.
        thing_area_limit: thing segments with fewer pixels become void.
        stuff_area_limit: stuff segments with fewer pixels become void.
        pixel_confidence: a pixel belongs to a slot only if its mask probability is above this, 0..1.
        class_confidence: pixel-wise only: lowest class probability, 0..1, of a slot that may claim pixels.
        maskwise: mask-wise post-processing with these options; None: pixel-wise.
    """

    size: tuple[int, int]
    index_to_class_id: tuple[int, ...]
    num_thing_classes: int
    ignore_label: int
    label_divisor: int
    thing_area_limit: int = 0
    stuff_area_limit: int = 0
    pixel_confidence: float = 0.4
    class_confidence: float = 0.7
    maskwise: MaskwiseSettings | None = None

    @classmethod
    def from_config(cls, config: config_pb2.ExperimentOptions) -> PostprocessingSettings:
        """Reads `evaluator_options` and `eval_dataset_options` (its data set and crop size).

        Raises:
            ConfigError: no crop size, an unknown data set or an unknown post-processing.
        """
        options, data = config.evaluator_options, config.eval_dataset_options
        if len(data.crop_size) != 2 or min(data.crop_size) < 1:
            raise ConfigError(
                f"eval_dataset_options.crop_size: expected two sizes, height and width; came {list(data.crop_size)}"
            )
        if options.transformer_post_processing not in METHODS:
            raise ConfigError(
                f"evaluator_options.transformer_post_processing: expected one of {', '.join(METHODS)}; "
                f"came {options.transformer_post_processing!r}"
            )
        dataset = load_dataset(data.dataset)
        return cls(
            size=(data.crop_size[0], data.crop_size[1]),
            index_to_class_id=tuple(dataset.index_to_class_id),
            num_thing_classes=len(dataset.thing_class_ids),
            ignore_label=dataset.ignore_label,
            label_divisor=dataset.label_divisor,
            thing_area_limit=options.thing_area_limit,
            stuff_area_limit=options.stuff_area_limit,
            pixel_confidence=options.pixel_confidence_threshold,
            class_confidence=options.transformer_class_confidence_threshold,
            maskwise=_maskwise_settings(options),
        )


def _maskwise_settings(options) -> MaskwiseSettings | None:
    if options.transformer_post_processing != "maskwise":
        return None
    maskwise = options.maskwise_postprocessing
    return MaskwiseSettings(
        thing_confidence=maskwise.transformer_class_confidence_threshold_thing,
        stuff_confidence=maskwise.transformer_class_confidence_threshold_stuff,
        free_fraction=maskwise.overlapping_threshold,
        class_weight=maskwise.reorder_class_weight,
        mask_weight=maskwise.reorder_mask_weight,
    )
