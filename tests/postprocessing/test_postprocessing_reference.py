"""Post-processing against plainly painting every mask on a canvas, over sizes, thresholds and difficult inputs."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.postprocessing import (
    MaskwiseSettings,
    PostprocessingSettings,
    Postprocessor,
    build_postprocessor,
    undo_resize,
)
from deeplab2_kmax.postprocessing.upsampled_top2 import softmax_sums
from deeplab2_kmax.protos import config_pb2

SLOTS, CLASSES, THINGS, DIVISOR, IGNORE = 12, 6, 3, 256, 0
MASKWISE = MaskwiseSettings(0.6, 0.5, free_fraction=0.7, class_weight=1.0, mask_weight=1.0)
SETTINGS = PostprocessingSettings(
    (33, 41), tuple(range(1, CLASSES + 1)), THINGS, IGNORE, DIVISOR, 6, 15, 0.4, 0.7, MASKWISE
)


def random_outputs(shape=(9, 11), batch=2, seed=0, spread=1.0):
    """Logits with a few smooth masks that overlap, over noise; half of the slots have a class."""
    rng = np.random.default_rng(seed)
    rows, columns = (axis / axis.max() for axis in np.mgrid[: shape[0], : shape[1]])
    centers = rng.random((2, batch, 1, 1, SLOTS))
    distance = (rows[..., None] - centers[0]) ** 2 + (columns[..., None] - centers[1]) ** 2
    masks = 9 * np.exp(-distance / rng.uniform(0.02, 0.2, (batch, 1, 1, SLOTS))) + rng.normal(
        0, 0.7, (batch, *shape, SLOTS)
    )
    classes = rng.normal(0, 1, (batch, SLOTS, CLASSES + 1))
    classes[:, ::2, :CLASSES] += 5 * np.eye(CLASSES)[rng.integers(CLASSES, size=(batch, (SLOTS + 1) // 2))]
    return {
        "pixel_space_mask_logits": (spread * masks).astype(np.float32),
        "transformer_class_logits": classes.astype(np.float32),
    }


def probabilities_of(logits, size=None):
    if size is not None:
        logits = tf.compat.v1.image.resize_bilinear(logits, size, align_corners=True)
    return tf.nn.softmax(tf.cast(logits, tf.float64)).numpy()


def painted(outputs, settings):
    """Mask-wise post-processing of one image, step by step as the papers describe it."""
    logits = outputs["pixel_space_mask_logits"]
    full, coarse = probabilities_of(logits, settings.size)[0], probabilities_of(logits)[0]
    class_probabilities = probabilities_of(outputs["transformer_class_logits"])[0, :, :-1]
    index, confidence = class_probabilities.argmax(-1), class_probabilities.max(-1)
    in_mask = coarse > settings.pixel_confidence
    mask_confidence = (coarse * in_mask).sum((0, 1)) / np.maximum(in_mask.sum((0, 1)), 1)
    options = settings.maskwise
    order = np.argsort(-(confidence**options.class_weight) * mask_confidence**options.mask_weight, kind="stable")

    canvas = np.full(settings.size, -1)
    for place, slot in enumerate(order):
        lowest = options.thing_confidence if index[slot] < settings.num_thing_classes else options.stuff_confidence
        mask = full[..., slot] > settings.pixel_confidence
        free = mask & (canvas < 0)
        if confidence[slot] >= lowest and free.sum() > mask.sum() * options.free_fraction:
            canvas[free] = place
    return maps_of_canvas(canvas, order, index, confidence, full, settings)


def maps_of_canvas(canvas, order, index, confidence, full, settings):
    class_ids = np.array(settings.index_to_class_id)
    owner = order[canvas]
    is_thing = index[owner] < settings.num_thing_classes
    semantic = np.where(canvas >= 0, class_ids[index[owner]], -1)
    panoptic = np.full(settings.size, settings.ignore_label * settings.label_divisor)
    for place in np.unique(canvas[canvas >= 0]):
        segment = canvas == place
        if is_thing[segment][0]:
            large = segment.sum() >= settings.thing_area_limit
        else:
            large = ((semantic == semantic[segment][0]) & ~is_thing).sum() >= settings.stuff_area_limit
        if large:
            instance = place + 1 if is_thing[segment][0] else 0
            panoptic[segment] = semantic[segment][0] * settings.label_divisor + instance
    return {
        "panoptic_pred": panoptic,
        "instance_pred": np.maximum(canvas, 0) + 1,
        "semantic_pred": class_ids[index[full.argmax(-1)]],
        "semantic_scores": np.where(canvas >= 0, confidence[owner], 0),
        "instance_scores": full.max(-1),
    }


def assert_painted(outputs, settings, tolerance=1e-5):
    maps = Postprocessor(settings)(outputs)
    for image in range(len(maps["panoptic_pred"])):
        expected = painted({name: values[image : image + 1] for name, values in outputs.items()}, settings)
        assert len(np.unique(expected["panoptic_pred"])) > 1
        for name, values in expected.items():
            ours = maps[name][image].numpy()
            assert ours.shape == settings.size
            if ours.dtype == np.int32:
                np.testing.assert_array_equal(ours, values, err_msg=name)
            else:
                np.testing.assert_allclose(ours, values, atol=tolerance, err_msg=name)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((9, 11), (33, 41)), ((9, 11), (9, 11)), ((9, 11), (17, 61)), ((9, 11), (30, 47)), ((9, 11), (145, 121))],
    ids=["stride 4", "stride 1", "strides 2 and 6", "no whole stride", "a stride too large for powers"],
)
def test_sizes(shape, size):
    assert_painted(random_outputs(shape), dataclasses.replace(SETTINGS, size=size))


@pytest.mark.parametrize(
    ("pixel_confidence", "free_fraction"), [(0.34, 0.0), (0.45, 0.9), (0.5, 0.9), (0.3, 0.9), (0.08, 0.3)]
)
def test_thresholds(pixel_confidence, free_fraction):
    maskwise = dataclasses.replace(MASKWISE, free_fraction=free_fraction)
    settings = dataclasses.replace(SETTINGS, pixel_confidence=pixel_confidence, maskwise=maskwise)
    assert_painted(random_outputs(seed=3), settings)


def side_by_side(*columns):
    """Mask logits of one image of three rows, from the probabilities of the slots in each of its columns."""
    logits = np.log(np.array(columns, np.float32))
    return np.tile(logits[np.newaxis, np.newaxis], (1, 3, 1, 1))


@pytest.mark.parametrize("pixel_confidence", [0.4, 0.3], ids=["by pairs", "one by one"])
def test_a_mask_is_painted_where_more_than_the_fraction_is_free(pixel_confidence):
    # Slot 0 comes first and takes one of the two columns of slot 1, of which exactly half is left.
    masks = side_by_side([0.90, 0.05, 0.05], [0.46, 0.44, 0.10], [0.05, 0.90, 0.05], [0.05, 0.05, 0.90])
    classes = np.zeros((1, 3, CLASSES + 1), np.float32)
    classes[0, [0, 1, 2], [0, 1, CLASSES]] = 9, 8, 9
    outputs = {"pixel_space_mask_logits": masks, "transformer_class_logits": classes}
    for free_fraction, instances in ((0.5, [1, 1, 0, 0]), (0.49, [1, 1, 2, 0])):
        settings = PostprocessingSettings(
            (3, 4), tuple(range(1, CLASSES + 1)), THINGS, IGNORE, DIVISOR, pixel_confidence=pixel_confidence,
            maskwise=MaskwiseSettings(0.6, 0.5, free_fraction),
        )  # fmt: skip
        panoptic = Postprocessor(settings)(outputs)["panoptic_pred"].numpy()
        # Slot 0 is class 1, instance 1, slot 1 is class 2, instance 2.
        np.testing.assert_array_equal(panoptic, np.tile([n * (DIVISOR + 1) for n in instances], (1, 3, 1)))


@pytest.mark.parametrize("pixel_confidence", [0.4, 0.3], ids=["by pairs", "one by one"])
def test_masks_that_are_not_painted_leave_their_pixels_to_later_ones(pixel_confidence):
    # Slot 1 loses half of its two columns to slot 0 and is not painted, so slot 2 finds both of its columns free.
    masks = side_by_side([0.90, 0.05, 0.05], [0.46, 0.44, 0.10], [0.10, 0.46, 0.44], [0.05, 0.05, 0.90])
    classes = np.zeros((1, 3, CLASSES + 1), np.float32)
    classes[0, [0, 1, 2], [0, 1, 2]] = 9, 8, 7
    settings = PostprocessingSettings(
        (3, 4), tuple(range(1, CLASSES + 1)), THINGS, IGNORE, DIVISOR, pixel_confidence=pixel_confidence,
        maskwise=MaskwiseSettings(0.6, 0.5, 0.5),
    )  # fmt: skip
    maps = Postprocessor(settings)({"pixel_space_mask_logits": masks, "transformer_class_logits": classes})
    expected = [n * (DIVISOR + 1) for n in (1, 1, 3, 3)]
    np.testing.assert_array_equal(maps["panoptic_pred"], np.tile(expected, (1, 3, 1)))


@pytest.mark.parametrize("maskwise", [MaskwiseSettings(0.5, 0.5, 0.5), None], ids=["maskwise", "pixelwise"])
def test_class_probabilities_and_areas_at_their_limits_are_enough_and_mask_probabilities_are_not(maskwise):
    # Columns of slot 0, slot 1, both alike, and slot 2. Slot 0 is a thing and slot 1 stuff, each with probability 1/2.
    masks = side_by_side([0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.5, 0.5, 1e-30], [0.05, 0.05, 0.9])
    classes = np.full((1, 3, CLASSES + 1), -1000, np.float32)
    classes[0, [0, 0, 1, 1, 2], [0, CLASSES, THINGS, CLASSES, CLASSES]] = 0
    outputs = {"pixel_space_mask_logits": masks, "transformer_class_logits": classes}
    ignore_label = CLASSES + 1
    thing, stuff, void = 1 * DIVISOR + 1, (THINGS + 1) * DIVISOR, ignore_label * DIVISOR
    for area_limit, columns in ((3, [thing, stuff, void, void]), (4, [void] * 4)):
        settings = PostprocessingSettings(
            (3, 4),
            tuple(range(1, CLASSES + 1)),
            THINGS,
            ignore_label,
            DIVISOR,
            area_limit,
            area_limit,
            0.5,
            0.5,
            maskwise,
        )
        maps = Postprocessor(settings)(outputs)
        np.testing.assert_array_equal(maps["panoptic_pred"], np.tile(columns, (1, 3, 1)))


def test_scores_are_given_where_stuff_alone_is_sure_enough():
    masks = side_by_side([0.9, 0.1], [0.9, 0.1])
    classes = np.full((1, 2, CLASSES + 1), -1000, np.float32)
    classes[0, [0, 0, 1], [THINGS, CLASSES, CLASSES]] = 0  # slot 0 is stuff of probability 1/2
    settings = dataclasses.replace(SETTINGS, size=(3, 2), stuff_area_limit=0, maskwise=MaskwiseSettings(0.9, 0.5, 0.5))
    maps = Postprocessor(settings)({"pixel_space_mask_logits": masks, "transformer_class_logits": classes})
    np.testing.assert_array_equal(maps["panoptic_pred"], np.full((1, 3, 2), (THINGS + 1) * DIVISOR))
    np.testing.assert_allclose(maps["instance_scores"], np.full((1, 3, 2), 0.9), rtol=1e-5)


@pytest.mark.parametrize(("class_weight", "mask_weight"), [(0.0, 1.0), (1.0, 0.0), (0.5, 2.0)])
def test_order_of_painting(class_weight, mask_weight):
    maskwise = dataclasses.replace(MASKWISE, class_weight=class_weight, mask_weight=mask_weight)
    assert_painted(random_outputs(seed=1), dataclasses.replace(SETTINGS, maskwise=maskwise))


def test_flat_logits():
    assert_painted(random_outputs(spread=0.05), dataclasses.replace(SETTINGS, pixel_confidence=0.08))


def test_steep_logits():
    # Softmax sums underflow between pixels; the softmax of such cells is computed plainly. Logits of thousands are
    # themselves rounded to 1e-4.
    assert_painted(random_outputs(spread=400.0), SETTINGS, tolerance=2e-3)


def test_steep_logits_make_softmax_sums_underflow():
    cells = softmax_sums.Cells.between((9, 11), (33, 41))
    sums, _ = softmax_sums.softmax_sums(random_outputs(spread=400.0)["pixel_space_mask_logits"], cells)
    assert 0 <= np.min(sums) < 1e-30


def test_equal_slots_share_their_pixels():
    outputs = random_outputs(seed=2)
    outputs["pixel_space_mask_logits"][..., 2] = outputs["pixel_space_mask_logits"][..., 0] + 3
    outputs["pixel_space_mask_logits"][..., 4] = outputs["pixel_space_mask_logits"][..., 2]
    assert_painted(outputs, SETTINGS)


def test_batch_of_unknown_size_equals_single_images():
    outputs = random_outputs(batch=3, seed=5)
    postprocessor = Postprocessor(SETTINGS)
    specs = {name: tf.TensorSpec([None, *values.shape[1:]]) for name, values in outputs.items()}
    together = tf.function(postprocessor, input_signature=[specs])(outputs)
    for image in range(3):
        alone = postprocessor({name: values[image : image + 1] for name, values in outputs.items()})
        for name, values in alone.items():
            np.testing.assert_allclose(together[name][image], values[0], atol=1e-6, err_msg=name)


def test_an_image_without_detections_is_void():
    outputs = random_outputs()
    outputs["transformer_class_logits"][1, :, -1] += 20
    for maskwise in (MASKWISE, None):
        maps = Postprocessor(dataclasses.replace(SETTINGS, maskwise=maskwise))(outputs)
        assert np.all(maps["panoptic_pred"][1] == IGNORE * DIVISOR)
        assert np.all(maps["instance_pred"][1] == 1)
        assert not np.any(maps["instance_scores"][1]) and not np.any(maps["semantic_scores"][1])
        assert np.all(maps["semantic_pred"][1] > 0)
        assert np.any(maps["panoptic_pred"][0])


def test_undo_resize():
    ids = tf.reshape(tf.range(2 * 6 * 8), [2, 6, 8])
    maps = {"panoptic_pred": ids, "instance_scores": tf.cast(ids, tf.float32), "other": tf.constant(1)}
    undone = undo_resize(maps, tf.constant([[3, 5], [3, 5]]), tf.constant([5, 9]))
    assert undone["panoptic_pred"].dtype == tf.int32
    np.testing.assert_array_equal(undone["panoptic_pred"][1, ::2, ::2], ids[1, :3, :5])
    np.testing.assert_array_equal(undone["instance_scores"], tf.cast(undone["panoptic_pred"], tf.float32))
    assert undone["other"] is maps["other"]


def test_undo_resize_cuts_the_padding_off_all_maps_and_interpolates_none():
    # Two columns are the picture, three columns wide; the third is padding.
    row = tf.constant([[[0, 8, 99]]])
    names = ("panoptic_pred", "semantic_pred", "instance_pred", "semantic_scores", "instance_scores")
    undone = undo_resize(dict.fromkeys(names, row), [1, 2], [1, 3])
    for name in names:
        assert undone[name].shape == (1, 1, 3) and set(undone[name].numpy().ravel()) == {0, 8}, name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.eval_dataset_options.ClearField("crop_size"), r"crop_size: expected height and width, got \[\]"),
        (lambda c: c.eval_dataset_options.__setattr__("dataset", "coca"), "coca"),
        (
            lambda c: c.evaluator_options.__setattr__("transformer_post_processing", "mask"),
            "transformer_post_processing: expected one of pixelwise, maskwise; got 'mask'",
        ),
    ],
)
def test_wrong_config(change, message):
    config = config_pb2.ExperimentOptions()
    config.eval_dataset_options.dataset = "coco_panoptic"
    config.eval_dataset_options.crop_size[:] = [33, 41]
    change(config)
    with pytest.raises(ConfigError, match=message):
        build_postprocessor(config)
