"""The plain values the input pipeline works with, read once from the `DatasetOptions` proto."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from deeplab2_kmax.datasets import DatasetDescriptor, load_dataset
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.input_pipeline.autoaugment import POLICIES

if TYPE_CHECKING:
    from deeplab2_kmax.protos import dataset_pb2


_PASTE_CHOICES = ("random", "none", "all")


@dataclasses.dataclass(frozen=True)
class CopyPasteSettings:
    """What of an image is pasted onto another.

    Attributes:
        scale_range: (smallest, largest) factor of the pasted image's random scale.
        thing, stuff, void: "random", "none" or "all" of the segments of this kind. Crowds count as things.
    """

    scale_range: tuple[float, float]
    thing: str = "random"
    stuff: str = "random"
    void: str = "none"


@dataclasses.dataclass(frozen=True)
class PipelineSettings:
    """What to read and how to prepare it.

    Attributes:
        descriptor: classes and label encoding of the data set.
        file_patterns: glob patterns of TFRecord shards.
        is_training: random order, scale, crop and flip, without end; otherwise each record once, in order.
        batch_size: images a step over all replicas together.
        crop_size: (height, width) of the prepared images, in pixels.
        min_size: (height, width) both of which the image reaches when first resized; None: no lower bound.
        max_size: (height, width) neither of which it then exceeds; None: no upper bound.
        resize_factor: sizes are then rounded up to a multiple of this number plus one; 0: as they are.
        scale_range: (smallest, largest) factor of the random scale in training.
        scale_step: distance between the factors drawn; 0: any factor in the range.
        small_instance_area: instances of fewer pixels weigh more in the semantic loss; 0: all weigh 1.
        small_instance_weight: how much more.
        has_labels: False for records without ground truth.
        max_thing_id: the most thing instances a prepared image may hold.
        seed: makes order and augmentation reproducible; None: different in every run.
        shuffle_buffer_size: records held in memory to draw from.
        resume_in_order: a restarted run goes on in the order of the seed where it stopped.
        max_bad_records: how many records that cannot be used are left out before the run stops.
        autoaugment_policy: name of an entry of `autoaugment.POLICIES` that training images get; empty: none.
        copy_paste: segments of another training image are pasted onto each; None: nothing is.
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

    def __post_init__(self):
        for problem in _problems(self):
            raise ConfigError(f"dataset options: {problem}")

    @classmethod
    def from_config(cls, options: dataset_pb2.DatasetOptions, is_training: bool) -> PipelineSettings:
        """Reads the proto.

        Raises:
            ConfigError: unknown data set, video input, or sizes that contradict each other; names the field.
        """
        for name in ("use_two_frames", "use_next_frame", "cameras_to_use"):
            if getattr(options, name):
                raise ConfigError(f"dataset options: {name}: video and multi-camera input are not supported")
        # Training images without any bound are not resized at all, so nothing is rounded to the factor either.
        resizes = not is_training or bool(options.min_resize_value) or bool(options.max_resize_value)
        augmentations = options.augmentations
        return cls(
            descriptor=load_dataset(options.dataset),
            file_patterns=tuple(options.file_pattern),
            is_training=is_training,
            batch_size=options.batch_size,
            crop_size=tuple(options.crop_size),
            min_size=size_bound(options.min_resize_value, "min_resize_value"),
            max_size=size_bound(options.max_resize_value, "max_resize_value"),
            resize_factor=options.resize_factor if resizes else 0,
            scale_range=(augmentations.min_scale_factor, augmentations.max_scale_factor),
            scale_step=augmentations.scale_factor_step_size,
            small_instance_area=options.small_instance_threshold if options.increase_small_instance_weights else 0,
            small_instance_weight=options.small_instance_weight,
            has_labels=options.decode_groundtruth_label,
            max_thing_id=options.max_thing_id,
            seed=options.seed if options.HasField("seed") else None,
            shuffle_buffer_size=options.shuffle_buffer_size,
            resume_in_order=_resume_in_order(options),
            max_bad_records=options.max_bad_records,
            autoaugment_policy=augmentations.autoaugment_policy_name if is_training else "",
            copy_paste=_copy_paste(augmentations) if is_training else None,
        )


def _resume_in_order(options: dataset_pb2.DatasetOptions) -> bool:
    has_seed = options.HasField("seed")
    if options.HasField("resume_in_order") and options.resume_in_order and not has_seed:
        raise ConfigError("dataset options: resume_in_order: needs a seed, without which there is no order to resume")
    return options.resume_in_order and has_seed


def size_bound(values: Sequence[int], field: str) -> tuple[int, int] | None:
    """A bound as configs write it - nothing, one side for both, or (height, width) - as (height, width) or None.

    Any side <= 0 means that there is no bound.

    Raises:
        ConfigError: more than two values.
    """
    values = tuple(values)
    if len(values) > 2:
        raise ConfigError(f"dataset options: {field}: expected one or two values, got {list(values)}")
    if not values or min(values) <= 0:
        return None
    return values if len(values) == 2 else values * 2


def _copy_paste(augmentations) -> CopyPasteSettings | None:
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


def _problems(settings: PipelineSettings):
    """What contradicts itself, as sentences that name the field."""
    if not settings.file_patterns:
        yield "file_pattern: expected at least one pattern of TFRecord files, got none"
    if settings.batch_size < 1:
        yield f"batch_size: expected at least 1, got {settings.batch_size}"
    crop = settings.crop_size
    if len(crop) != 2 or min(crop) < 1:
        yield f"crop_size: expected height and width, got {list(crop)}"
    elif settings.max_size and (settings.max_size[0] > crop[0] or settings.max_size[1] > crop[1]):
        yield f"max_resize_value: {list(settings.max_size)} exceeds crop_size {list(crop)}"
    smallest, largest = settings.scale_range
    if not 0 < smallest <= largest:
        yield f"augmentations: expected 0 < min_scale_factor <= max_scale_factor, got {smallest:g} and {largest:g}"
    if settings.scale_step < 0:
        yield f"augmentations.scale_factor_step_size: expected at least 0, got {settings.scale_step:g}"
    if settings.autoaugment_policy not in ("", *POLICIES):
        yield (
            f"augmentations.autoaugment_policy_name: expected one of {', '.join(POLICIES)},"
            f" got {settings.autoaugment_policy!r}"
        )
    for kind in ("thing", "stuff", "void") if settings.copy_paste else ():
        choice = getattr(settings.copy_paste, kind)
        if choice not in _PASTE_CHOICES:
            field = f"augmentations.panoptic_copy_paste.panoptic_copy_paste_{kind}_option"
            yield f"{field}: expected one of {', '.join(_PASTE_CHOICES)}, got {choice!r}"
    if settings.resize_factor < 0:
        yield f"resize_factor: expected at least 0, got {settings.resize_factor}"
    if settings.max_thing_id < 1:
        yield f"max_thing_id: expected at least 1, got {settings.max_thing_id}"
    if settings.shuffle_buffer_size < 1:
        yield f"shuffle_buffer_size: expected at least 1, got {settings.shuffle_buffer_size}"
    if settings.max_bad_records < 0:
        yield f"max_bad_records: expected at least 0, got {settings.max_bad_records}"
    if settings.is_training and not settings.has_labels:
        yield "decode_groundtruth_label: false, but training needs labels"
