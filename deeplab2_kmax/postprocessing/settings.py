"""The settings of post-processing, as plain values; the only file of this folder that reads protos."""

from __future__ import annotations

import dataclasses

from deeplab2_kmax.config.checks import evaluator_problems
from deeplab2_kmax.config.data_checks import data_problems
from deeplab2_kmax.config.problems import refuse
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.protos import config_pb2, evaluator_pb2

# The fields of `evaluator_options` that post-processing depends on.
FIELDS = (
    "stuff_area_limit",
    "thing_area_limit",
    "transformer_class_confidence_threshold",
    "pixel_confidence_threshold",
    "transformer_post_processing",
    "maskwise_postprocessing",
)


@dataclasses.dataclass(frozen=True)
class MaskwiseSettings:
    """Options that only mask-wise post-processing has.

    Attributes:
        thing_confidence: lowest class probability, 0..1, with which a slot of a thing class is painted.
        stuff_confidence: the same for stuff classes.
        free_fraction: a mask is painted only if, at its turn, more than this fraction of its pixels is still free.
        class_weight: masks are painted by descending class_confidence ** class_weight * mask_confidence ** mask_weight.
        mask_weight: see `class_weight`.
    """

    thing_confidence: float = 0.7
    stuff_confidence: float = 0.7
    free_fraction: float = 0.5
    class_weight: float = 1.0
    mask_weight: float = 0.0

    @classmethod
    def from_options(cls, options: evaluator_pb2.EvaluatorOptions.MaskwisePostProcessingOptions) -> MaskwiseSettings:
        """The settings under our names, which say more than DeepLab2's."""
        return cls(
            thing_confidence=options.transformer_class_confidence_threshold_thing,
            stuff_confidence=options.transformer_class_confidence_threshold_stuff,
            free_fraction=options.overlapping_threshold,
            class_weight=options.reorder_class_weight,
            mask_weight=options.reorder_mask_weight,
        )


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
        maskwise: the options of mask-wise post-processing; None: pixel-wise post-processing.
        portable: whether only operations are used that other runtimes than TensorFlow have as well; ids are
            the same, scores but for rounding.
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
    portable: bool = False

    @classmethod
    def from_options(cls, config: config_pb2.ExperimentOptions, portable: bool = False) -> PostprocessingSettings:
        """The settings of an experiment: its `evaluator_options`, and data set and crop size of its evaluation data.

        Args:
            config: the experiment.
            portable: see the attribute.

        Raises:
            ConfigError: no crop size, an unknown data set or an unknown post-processing.
        """
        options, data = config.evaluator_options, config.eval_dataset_options
        refuse([*data_problems(data, "eval_dataset_options"), *evaluator_problems(options)])
        dataset = load_dataset(data.dataset)
        height, width = data.crop_size
        return cls(
            size=(height, width),
            index_to_class_id=tuple(dataset.index_to_class_id),
            num_thing_classes=len(dataset.thing_class_ids),
            ignore_label=dataset.ignore_label,
            label_divisor=dataset.label_divisor,
            thing_area_limit=options.thing_area_limit,
            stuff_area_limit=options.stuff_area_limit,
            pixel_confidence=options.pixel_confidence_threshold,
            class_confidence=options.transformer_class_confidence_threshold,
            maskwise=(
                MaskwiseSettings.from_options(options.maskwise_postprocessing)
                if options.transformer_post_processing == "maskwise"
                else None
            ),
            portable=portable,
        )
