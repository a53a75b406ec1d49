"""The settings of the input pipeline, as plain values; the only file of this folder that reads protos."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from deeplab2_kmax.config.data_checks import reading_problems
from deeplab2_kmax.config.problems import refuse
from deeplab2_kmax.datasets import DatasetDescriptor, load_dataset
from deeplab2_kmax.protos import dataset_pb2


@dataclasses.dataclass(frozen=True)
class CopyPasteSettings:
    """Which segments of an image are pasted onto another.

    Attributes:
        scale_range: (smallest, largest) factor of the pasted image's random scale.
        thing: "random", "none" or "all" of the thing segments; crowds count as things.
        stuff: the same for stuff segments.
        void: the same for void.
    """

    scale_range: tuple[float, float]
    thing: str = "random"
    stuff: str = "random"
    void: str = "none"


@dataclasses.dataclass(frozen=True)
class PipelineSettings:
    """What to read and how to prepare it. Checked where it is made from options, not where it is made from values.

    Attributes:
        descriptor: classes and label encoding of the data set.
        file_patterns: glob patterns of TFRecord shards.
        is_training: records in random order, without end, randomly scaled, cropped and flipped; otherwise each record
            once, in order.
        batch_size: images in a step, over all replicas together.
        crop_size: (height, width) of the prepared images, in pixels.
        min_size: (height, width) that the image is first resized to reach on both sides; None: no lower bound.
        max_size: (height, width) that it must not exceed then on either side; None: no upper bound.
        resize_factor: sizes are then rounded up to a multiple of this number plus one; 0: as they are.
        scale_range: (smallest, largest) factor of the random scale in training.
        scale_step: distance between the factors drawn; 0: any factor in the range.
        small_instance_area: instances of fewer pixels weigh more in the semantic loss; 0: all weigh 1.
        small_instance_weight: the weight of their pixels; all others weigh 1.
        has_labels: False for records without ground truth.
        max_thing_id: the most thing instances a prepared image may hold.
        seed: makes order and augmentation reproducible; None: different in every run.
        shuffle_buffer_size: records held in memory, of which the next one is drawn.
        resume_in_order: a restarted run goes on in the order that the seed decides, where it stopped.
        max_bad_records: how many records that cannot be used may be left out; one more stops the run.
        autoaugment_policy: name of an entry of `autoaugment.POLICIES` that training images get; empty: none.
        copy_paste: how segments of another training image are pasted onto each; None: nothing is pasted.
    """

    descriptor: DatasetDescriptor
    file_patterns: tuple[str, ...]
    is_training: bool
    batch_size: int
    crop_size: tuple[int, int]
    min_size: tuple[int, int] | None = None
    max_size: tuple[int, int] | None = None
    resize_factor: int = 0
    scale_range: tuple[float, float] = (1.0, 1.0)
    scale_step: float = 0.0
    small_instance_area: int = 0
    small_instance_weight: float = 1.0
    has_labels: bool = True
    max_thing_id: int = 128
    seed: int | None = None
    shuffle_buffer_size: int = 1000
    resume_in_order: bool = False
    max_bad_records: int = 0
    autoaugment_policy: str = ""
    copy_paste: CopyPasteSettings | None = None

    @classmethod
    def from_options(cls, options: dataset_pb2.DatasetOptions, is_training: bool) -> PipelineSettings:
        """Reads the options of a data set.

        Args:
            options: `train_dataset_options` of a config if `is_training`, else its `eval_dataset_options`.
            is_training: see above; evaluation has no augmentation.

        Raises:
            ConfigError: an unknown data set, video input, no files, or values that are out of range or contradict each
                other; names the fields.
        """
        where = "train_dataset_options" if is_training else "eval_dataset_options"
        refuse(reading_problems(options, where, is_training))
        # DeepLab2 does not resize training images without any bound, so there is nothing to round to the factor.
        resizes = not is_training or bool(options.min_resize_value) or bool(options.max_resize_value)
        augmentations = options.augmentations
        height, width = options.crop_size
        return cls(
            descriptor=load_dataset(options.dataset),
            file_patterns=tuple(options.file_pattern),
            is_training=is_training,
            batch_size=options.batch_size,
            crop_size=(height, width),
            min_size=size_bound(options.min_resize_value),
            max_size=size_bound(options.max_resize_value),
            resize_factor=options.resize_factor if resizes else 0,
            scale_range=(augmentations.min_scale_factor, augmentations.max_scale_factor),
            scale_step=augmentations.scale_factor_step_size,
            small_instance_area=options.small_instance_threshold if options.increase_small_instance_weights else 0,
            small_instance_weight=options.small_instance_weight,
            has_labels=options.decode_groundtruth_label,
            max_thing_id=options.max_thing_id,
            seed=options.seed if options.HasField("seed") else None,
            shuffle_buffer_size=options.shuffle_buffer_size,
            resume_in_order=options.resume_in_order and options.HasField("seed"),
            max_bad_records=options.max_bad_records,
            autoaugment_policy=augmentations.autoaugment_policy_name if is_training else "",
            copy_paste=_copy_paste(augmentations) if is_training else None,
        )


def size_bound(values: Sequence[int]) -> tuple[int, int] | None:
    """A bound as configs write it, as (height, width); None where there is no bound.

    Args:
        values: nothing, one side for both, or height and width, in pixels; any side <= 0 means that there is no bound.
    """
    if not values or min(values) <= 0:
        return None
    height, width = (values[0], values[0]) if len(values) == 1 else values
    return height, width


def _copy_paste(augmentations: dataset_pb2.DatasetOptions.AugmentationOptions) -> CopyPasteSettings | None:
    pasting = augmentations.panoptic_copy_paste
    scale = pasting.panoptic_copy_paste_scale
    if scale <= 0:
        return None
    return CopyPasteSettings(
        scale_range=(augmentations.min_scale_factor * scale, augmentations.max_scale_factor * scale),
        thing=pasting.panoptic_copy_paste_thing_option,
        stuff=pasting.panoptic_copy_paste_stuff_option,
        void=pasting.panoptic_copy_paste_void_option,
    )
