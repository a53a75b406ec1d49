"""The override input_size, which sets all that depends on the size of the images."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.config import ConfigError, differences, load_config, load_with_notes
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.input_pipeline import PipelineSettings
from deeplab2_kmax.input_pipeline.augmentation import draw_window
from deeplab2_kmax.input_pipeline.decoding import Record
from deeplab2_kmax.input_pipeline.samples import evaluation_sample, training_sample
from deeplab2_kmax.postprocessing import undo_resize


def sizes(config):
    return [
        list(getattr(options, name))
        for options in (config.train_dataset_options, config.eval_dataset_options)
        for name in ("crop_size", "min_resize_value", "max_resize_value")
    ]


@pytest.mark.parametrize("value, size", [("641,641", [641, 641]), ("641", [641, 641]), ("[321, 641]", [321, 641])])
def test_one_override_in_place_of_six(value, size):
    config = load_config("coco/kmax_r50", [f"input_size={value}"])
    assert sizes(config) == [size] * 6


def test_it_makes_the_smaller_of_two_shipped_configs():
    smaller = load_config("ade20k/kmax_r50_1281", ["input_size=641,641"])
    changes = differences(smaller, load_config("ade20k/kmax_r50"))
    # The shipped config writes [641] where both sides are meant.
    other = {name for name, values in changes.items() if values != ("[641, 641]", "[641]")}
    # These pixels are drawn for the losses; they cost little, and fewer of them need not be better.
    assert {name.rpartition(".")[-1] for name in other} == {
        "experiment_name",
        "instance_discrimination_sample_k",
        "semantic_sample_k",
    }


def test_area_limits_keep_their_share_of_the_image():
    options = load_config("coco/kmax_r50", ["input_size=641,641"]).evaluator_options
    # As in DeepLab2's configs for 641 pixels, but for the pixels that are beyond a multiple of the stride.
    assert (options.thing_area_limit, options.stuff_area_limit) == (100, 1602)
    _, notes = load_with_notes("coco/kmax_r50", ["input_size=641,641"])
    told = notes[0].text
    assert "thing_area_limit 400 -> 100, stuff_area_limit 6400 -> 1602" in told and notes[0].told


def test_images_that_are_not_enlarged_stay_so():
    config = load_config("cityscapes/kmax_r50", ["input_size=513,1025"])
    assert sizes(config) == [[513, 1025], [0], [513, 1025]] * 2


def test_the_last_override_wins():
    overrides = ["evaluator_options.thing_area_limit=7", "input_size=641", "evaluator_options.stuff_area_limit=9"]
    overrides += ["train_dataset_options.max_resize_value=321"]
    config = load_config("coco/kmax_r50", overrides)
    assert list(config.train_dataset_options.max_resize_value) == [321]
    assert (config.evaluator_options.thing_area_limit, config.evaluator_options.stuff_area_limit) == (2, 9)


@pytest.mark.parametrize(
    "overrides, told",
    [
        (["input_size=640,100"], "output stride 4 plus one, got [640, 100]; the nearest to 640 are 637 and 641, the"),
        (["input_size=640,100"], "--override=input_size=641,101 sets all sizes at once"),
        (["train_dataset_options.crop_size=641,641"], "exceeds crop_size [641, 641]; --override=input_size=641,641"),
        (
            ["input_size=small"],
            "'input_size=small': expected height and width in pixels such as input_size=641",
        ),
        (["input_size=0,641"], "got '0,641'"),
        (["input_size=1,641"], "got [1, 641]; the nearest to 1 is 5. --override=input_size=5,641"),
        (["input_size=100001"], "of at most 100000, got '100001'"),
        (["input_size=99999999999999999999"], "of at most 100000, got '99999999999999999999'"),
        (["input_size=１２９"], "got '１２９'"),
        (["input_size=1,2,3"], "got '1,2,3'"),
        (["input_sise=641,641"], "did you mean input_size?"),
    ],
)
def test_other_sizes_are_refused_with_the_nearest(overrides, told):
    with pytest.raises(ConfigError) as error:
        load_config("coco/kmax_r50", overrides)
    assert told in str(error.value)


def test_sizes_that_are_suggested_suit_the_labels_too():
    # Masks have stride 2 there, but the logits of the semantic decoder stride 4.
    told = r"output stride 4 plus one, got \[63, 95\]; .*--override=input_size=65,97 sets"
    with pytest.raises(ConfigError, match=told):
        load_config("shapes/kmax_tiny", ["input_size=63,95"])
    load_config("shapes/kmax_tiny", "input_size=65,97")


def test_area_limits_stay_limits():
    overrides = ["input_size=5", "input_size=641"]
    assert load_config("coco/kmax_r50", overrides).evaluator_options.thing_area_limit > 0


@pytest.mark.parametrize(
    "name, size, image",
    [
        ("coco/kmax_r50", (65, 65), (48, 160)),
        ("coco/max_s_641_100k", (65, 65), (160, 120)),
        ("cityscapes/kmax_r50", (65, 129), (128, 256)),
        ("ade20k/kmax_r50", (33, 65), (170, 128)),
        ("shapes/kmax_tiny", (65, 65), (96, 96)),
    ],
)
def test_training_and_evaluation_see_whole_images_at_one_scale(name, size, image):
    config = load_config(name, [f"input_size={size[0]},{size[1]}", "train_dataset_options.file_pattern=a"])
    config.eval_dataset_options.file_pattern[:] = ["a"]
    train = PipelineSettings.from_options(config.train_dataset_options, is_training=True)
    evaluation = PipelineSettings.from_options(config.eval_dataset_options, is_training=False)
    record = _record(config.train_dataset_options.dataset, image)
    sample = evaluation_sample(record, evaluation)
    assert sample["image"].shape == [*size, 3]
    resized = sample["size_resized"].numpy()
    # It fills the crop in one direction, and keeps its shape.
    assert (resized <= size).all() and (resized == size).any()
    assert abs(resized[0] / resized[1] - image[0] / image[1]) < 0.05
    window = draw_window(tf.constant([1, 2], tf.int64), record.size, (1.0, 1.0), train)
    np.testing.assert_array_equal(window.fitted_size, resized)
    crop = training_sample(record, record, seed=tf.constant([1, 2], tf.int64), settings=train)
    assert crop["image"].shape == [*size, 3]
    # What the network sees is measured at the image's own size.
    seen = undo_resize({"panoptic_pred": tf.cast(sample["semantic_gt"], tf.int32)[None]}, resized, record.size)
    assert (seen["panoptic_pred"][0].numpy() == sample["semantic_raw"].numpy()).mean() > 0.95


def _record(dataset, size):
    """A picture of two halves, of the first stuff class and of the first thing."""
    descriptor = load_dataset(dataset)
    label = np.full(size, descriptor.stuff_class_ids[0] * descriptor.label_divisor, np.int32)
    label[:, size[1] // 2 :] = descriptor.thing_class_ids[0] * descriptor.label_divisor + 1
    return Record(tf.zeros([*size, 3], tf.uint8), tf.constant(label), tf.constant("a.png"), tf.constant(size))
