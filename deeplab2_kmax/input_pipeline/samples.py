"""Turns decoded records into training and evaluation samples, under DeepLab2's names."""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.input_pipeline import augmentation, autoaugment, copy_paste, targets
from deeplab2_kmax.input_pipeline.decoding import Record
from deeplab2_kmax.input_pipeline.resizing import PADDING_GREY, pad_to, resize_align_corners, resize_for_inference
from deeplab2_kmax.input_pipeline.settings import PipelineSettings


def training_sample(
    record: Record, source: Record | None = None, *, seed: tf.Tensor, settings: PipelineSettings
) -> dict[str, tf.Tensor]:
    """A random crop of an image, and its targets; the arguments are those of `augmented`.

    Returns:
        `image` [h, w, 3] float32 0..255 of the crop size; the entries of `targets.make_targets`; and `image_name`, a
        scalar string that names the images which the pixels are from.
    """
    image, label, distinct = augmented(record, source, seed=seed, settings=settings)
    name = record.name
    if settings.copy_paste and source is not None:
        name = tf.strings.join([name, " with segments of ", source.name])
    return {"image": image, "image_name": name, **_targets(label, settings, distinct)}


def augmented(
    record: Record, source: Record | None = None, *, seed: tf.Tensor, settings: PipelineSettings
) -> tuple[tf.Tensor, tf.Tensor, targets.DistinctIds]:
    """A random crop; with `settings.copy_paste`, segments of another random crop are pasted onto it.

    Args:
        record: image and label; the label is needed.
        source: the record whose segments are pasted; needed with `settings.copy_paste`.
        seed: [2] int64 that decides scale, position, flip, colors and what is pasted.
        settings: how to augment.

    Returns:
        Image [h, w, 3] float32 0..255 of the crop size, label [h, w] int32 panoptic ids, and the distinct ids in it.

    Raises:
        ValueError: there is no `source` though `settings.copy_paste` needs one.
    """
    descriptor = settings.descriptor
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 3))
    crop = training_crop(record, seeds[0], settings.scale_range, settings)
    image, label = augmentation.pad_crop(crop, settings.crop_size, descriptor.void_id)
    if not settings.copy_paste:
        return image, label, targets.list_ids(label)
    if source is None:
        raise ValueError("source: expected a record to paste segments from, as settings.copy_paste is set; got None")
    source_crop = training_crop(source, seeds[1], settings.copy_paste.scale_range, settings)
    return copy_paste.paste(image, label, source_crop, seeds[2], descriptor, settings.copy_paste, settings.max_thing_id)


def training_crop(
    record: Record, seed: tf.Tensor, scale_range: tuple[float, float], settings: PipelineSettings
) -> augmentation.Crop:
    """A random crop of one image, with AutoAugment's color operations.

    Args:
        record: image and label.
        seed: [2] int64 that decides scale, position, flip and colors.
        scale_range: (smallest, largest) factor of the random scale.
        settings: how to augment.
    """
    window_seed, chain_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    window = augmentation.draw_window(window_seed, record.size, scale_range, settings)
    policy = autoaugment.POLICIES.get(settings.autoaugment_policy)
    chain = autoaugment.draw_chain(chain_seed, policy) if policy else None
    return augmentation.cut_crop(record.image, record.label, window, settings.crop_size, policy, chain)


def evaluation_sample(record: Record, settings: PipelineSettings) -> dict[str, tf.Tensor]:
    """The whole image, resized and padded to the crop as in DeepLab2, and what evaluation at its own size needs.

    Args:
        record: image and, where there is one, label.
        settings: the sizes, and the classes.

    Returns:
        `image` [h, w, 3] float32 0..255 of the crop size; `resized_image` [h', w', 3] float32, the same before
        padding; `size_resized` [2] int32 (h', w'); `image_name` scalar string; `size_raw` [2] int32, height and width
        of the original. With labels also the entries of `targets.make_targets` for the padded label, and, at the
        original size [H, W], `panoptic_raw` int32, `semantic_raw` int32 and `is_crowd_raw` bool.
    """
    descriptor = settings.descriptor
    image, size = resize_for_inference(
        record.image, settings.crop_size, settings.min_size, settings.max_size, settings.resize_factor
    )
    sample = {
        "image": image,
        "resized_image": image[: size[0], : size[1]],
        "size_resized": size,
        "image_name": record.name,
        "size_raw": record.size,
    }
    if record.label is None:
        return sample
    resized = resize_align_corners(record.label[..., tf.newaxis], size, "nearest")
    label = pad_to(resized, settings.crop_size, descriptor.void_id)[..., 0]
    semantic, is_crowd = targets.semantic_and_crowd(record.label, descriptor)
    raw = {"panoptic_raw": record.label, "semantic_raw": semantic, "is_crowd_raw": is_crowd}
    return {**sample, **_targets(label, settings), **raw}


def evaluation_padding(settings: PipelineSettings) -> dict[str, object]:
    """{entry: what fills up the smaller images of an evaluation batch}: grey, void, and no crowd.

    `size_resized` and `size_raw` tell the true sizes of `resized_image` and of the `_raw` entries.
    """
    descriptor = settings.descriptor
    return {
        "resized_image": PADDING_GREY,
        "panoptic_raw": descriptor.void_id,
        "semantic_raw": descriptor.ignore_label,
        "is_crowd_raw": False,
    }


def _targets(
    label: tf.Tensor, settings: PipelineSettings, distinct: targets.DistinctIds | None = None
) -> dict[str, tf.Tensor]:
    return targets.make_targets(
        label,
        settings.descriptor,
        settings.max_thing_id,
        settings.small_instance_area,
        settings.small_instance_weight,
        distinct,
    )
