"""Color operations, crops and pasting against what DeepLab2 makes of the same pictures by the same draws."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.input_pipeline import augmentation, autoaugment, copy_paste
from deeplab2_kmax.input_pipeline.color_operations import OPERATIONS
from deeplab2_kmax.input_pipeline.decoding import Record
from deeplab2_kmax.input_pipeline.resizing import fitted_size
from deeplab2_kmax.input_pipeline.samples import training_sample
from deeplab2_kmax.input_pipeline.settings import CopyPasteSettings, PipelineSettings
from deeplab2_kmax.input_pipeline.targets import list_ids
from helpers import augmentation_cases as cases


@pytest.fixture(scope="module")
def deeplab2(golden):
    with np.load(golden / "augmentation.npz") as figures:
        return dict(figures)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_at_every_level(deeplab2, name):
    small, large = tf.constant(cases.picture(29, 37, 0)), tf.constant(cases.picture(257, 256, 1))
    for level, expected in zip(cases.LEVELS, deeplab2[f"operation/{name}"]):
        output = OPERATIONS[name](small, level)
        assert output.dtype == tf.uint8 and output.shape == small.shape
        np.testing.assert_array_equal(output.numpy().ravel()[::7], expected, err_msg=f"level {level}")
    for level, expected in zip((2, 9), deeplab2[f"large/{name}"]):
        np.testing.assert_array_equal(OPERATIONS[name](large, level).numpy().ravel()[::997], expected)


def window(draws, case):
    fitted = fitted_size(draws.size, case.min_resize, case.max_resize, case.factor)
    scaled = tf.cast(tf.cast(fitted, tf.float32) * draws.scale, tf.int32)
    origin = tf.where(scaled < cases.CROP, tf.negative(draws.offset), draws.offset)
    return augmentation.Window(fitted, scaled, origin, tf.constant(draws.flip))


def chain_index(draws, policy):
    pair = autoaugment.POLICIES[policy][draws.pair]
    steps = tuple((step.operation, step.level) for step, taken in zip(pair, draws.taken) if taken)
    return [chain.steps for chain in autoaugment.chains_of(autoaugment.POLICIES[policy])].index(steps)


def kept_mask(record, case):
    """Which segments are kept in our order, padding last; DeepLab2 lists padding where it comes first in the crop."""
    crop = augmentation.cut_crop(record.image, record.label, window(case.source, case), cases.CROP)
    padding = -1
    padded = augmentation.pad_crop(crop, cases.CROP, padding)[1].numpy()
    order = list(dict.fromkeys(padded.ravel().tolist()))
    ids = dict.fromkeys(crop.label.numpy().ravel().tolist())
    return tf.constant([order.index(each) in case.kept for each in [*ids, *[padding] * (padding in order)]])


@pytest.mark.parametrize("name", cases.CASES)
def test_training_sample_of_the_same_draws(deeplab2, name, monkeypatch):
    case = cases.CASES[name]
    windows = iter([window(draws, case) for draws in (case.draws, case.source) if draws])
    monkeypatch.setattr(augmentation, "draw_window", lambda *_: next(windows))
    chains = iter([chain_index(draws, case.policy) for draws in (case.draws, case.source) if draws and case.policy])
    monkeypatch.setattr(autoaugment, "draw_chain", lambda *_: tf.constant(next(chains)))
    settings = PipelineSettings(
        descriptor=load_dataset(case.dataset),
        file_patterns=("x",),
        is_training=True,
        batch_size=1,
        crop_size=cases.CROP,
        small_instance_area=cases.SMALL_AREA,
        small_instance_weight=3.0,
        max_thing_id=cases.MAX_THING_ID,
        autoaugment_policy=case.policy,
        copy_paste=CopyPasteSettings((1.0, 1.0), *case.choices) if case.source else None,
    )
    records = [
        Record(
            tf.constant(cases.picture(*draws.size, seed)),
            tf.constant(cases.segments(*draws.size, case.dataset, seed + 1)),
            tf.constant(""),
            tf.constant(draws.size),
        )
        for draws, seed in ((case.draws, 1), (case.source, 3))
        if draws
    ]
    if case.source:
        mask = kept_mask(records[1], case)
        monkeypatch.setattr(copy_paste, "draw_kept", lambda _, count: tf.ensure_shape(mask, [count]))
    sample = training_sample(*records, seed=tf.constant([1, 2], tf.int64), settings=settings)
    # DeepLab2 subtracts the padding's grey and adds it again, which rounds values that are not whole.
    tolerance = 0 if case.policy else 4e-6
    np.testing.assert_allclose(sample["image"].numpy().ravel()[::5], deeplab2[f"sample/{name}/image"], 0, tolerance)
    for key in ("panoptic_gt", "semantic_loss_weight", "thing_id_mask_gt", "thing_id_class_gt"):
        np.testing.assert_array_equal(sample[key], np.squeeze(deeplab2[f"sample/{name}/{key}"]), err_msg=key)


@pytest.mark.parametrize("choices", itertools.product(cases.CHOICES, repeat=3), ids="-".join)
def test_paste(deeplab2, choices):
    descriptor = load_dataset("coco_panoptic")
    label, source = (cases.segments(*cases.CROP, "coco_panoptic", seed) for seed in (5, 6))
    # The first row is padding, DeepLab2's first segment.
    source = source[1:]
    distinct = list_ids(source)
    drawn = tf.constant([i in (1, 3, 5) for i in range(1, len(distinct.ids) + 1)])
    kept = copy_paste.keep_by_kind(distinct.ids, drawn, descriptor, CopyPasteSettings((1.0, 1.0), *choices))
    image, pasted, merged = copy_paste.paste_segments(
        tf.zeros([*cases.CROP, 3]),
        tf.constant(label),
        augmentation.Crop(tf.ones([*source.shape, 3]), tf.constant(source), tf.constant([1, 0])),
        distinct,
        kept,
        descriptor,
        cases.MAX_THING_ID,
    )
    np.testing.assert_array_equal(pasted, deeplab2["paste/" + "/".join(choices)])
    assert sorted(merged.ids.numpy()) == np.unique(pasted).tolist()
    is_pasted = np.unpackbits(deeplab2["pasted/" + "/".join(choices)], count=label.size).reshape(cases.CROP)
    np.testing.assert_array_equal(image, np.broadcast_to(is_pasted[..., None], (*cases.CROP, 3)))
